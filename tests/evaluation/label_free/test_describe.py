from transfer.evaluation.label_free.describe import describe_expected

RECORD = {"accuracy": 0.83, "interval": [0.76, 0.9], "level": 0.9, "n": 1200, "held_out_accuracy": 0.91, "alarm": False}


def test_images_without_labels():
    (line,) = describe_expected("object", RECORD | {"of": "images without labels"}, {"n": 3, "accuracy": 1.0})
    assert line == (
        "object: 1,200 images without labels: expected accuracy 0.830 (90 % interval 0.760 to 0.900); 0.910 on "
        "held-out images of the run"
    )


def test_the_measured_accuracy_stands_beside_that_of_labelled_images():
    (line,) = describe_expected("object", RECORD | {"of": "all images"}, {"n": 1200, "accuracy": 0.85})
    assert "expected accuracy 0.830 (90 % interval 0.760 to 0.900); measured 0.850; 0.910 on held-out" in line


def test_an_ensemble_names_its_members():
    (line,) = describe_expected("object", RECORD | {"of": "images without labels", "members": 3}, {})
    assert line.endswith("0.910 on held-out images of the 3 members, in the mean")


def test_an_alarm_says_what_to_do():
    _, line = describe_expected("kind", RECORD | {"of": "all images", "alarm": True}, {})
    assert line.startswith("kind: these images differ from the training images")
    assert "transfer pick" in line
