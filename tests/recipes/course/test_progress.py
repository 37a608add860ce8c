import numpy as np
from course import progress


def test_the_lines_are_those_of_the_course_to_the_letter() -> None:
    train, val = {"domain": 0.829, "object": 0.125}, {"domain": 0.89, "object": 0.09}
    assert progress.started("NAME") == "Model NAME train started:"
    assert (
        progress.epoch(10, 3.418, train, val, 339.4, 339.4)
        == "    Epoch 10: cost=3.418, accuracy=0.829+0.125/0.890+0.090 (339/339 secs)"
    )
    assert progress.ended("NAME", 1757.3) == "Model NAME train ended in 1757 secs:"
    test = {"domain": 0.8672, "object": 0.2432}
    assert progress.report("NAME", test, 0.2) == "Model NAME test report: accuracy = 0.867+0.243, (0 secs)"
    assert progress.examples(np.array([[0.65, 0.15, 0.2]]), np.array([1]), ("amazon", "dslr", "webcam")) == [
        "[65,15,20] => estimated amazon : true dslr => X"
    ]


def test_without_validation_or_a_second_head() -> None:
    line = progress.epoch(1, 0.5, {"object": 0.5}, {}, 1, 2)
    assert line == "    Epoch 1: cost=0.500, accuracy=0.500 (1/2 secs)"


def test_the_first_eight_classes_are_shown_and_all_are_looked_at() -> None:
    probabilities = np.array([[0.01] * 8 + [0.02, 0.90], [0.93] + [0.0] * 7 + [0.05, 0.02]])
    names = [f"c{i}" for i in range(10)]
    assert progress.examples(probabilities, np.array([9, -1]), names) == [
        "[1,1,1,1,1,1,1,1] => estimated c9 : true c9 => O",
        "[93,0,0,0,0,0,0,0] => estimated c0 : true unknown => X",
    ]
