import json

from transfer.data.images.preprocessing import Preprocessing
from transfer.formats.record import describe_models, describe_preprocessing, dump_description
from transfer.runs import checkpoint


def test_heads_classes_and_preprocessing_are_described_without_paths(saved, tmp_path):
    models = checkpoint.load_models(saved(separate=True))
    models["object"].backbone.weights = f"file {tmp_path}/secret.safetensors"
    about = describe_models(models)
    assert about["heads"] == {
        "object": {"kind": "softmax", "classes": ["blue", "green", "red"]},
        "domain": {"kind": "softmax", "classes": ["plain", "striped"]},
    }
    assert Preprocessing.from_dict(about["preprocessing"]) == models["object"].backbone.preprocessing
    assert "secret" not in json.dumps(about)


def test_every_crop_mode_is_described():
    for mode, word in (("center", "crop the centre"), ("squash", "256 x 256"), ("border", "pad with the mean")):
        text = describe_preprocessing(Preprocessing((3, 224, 224), (0.5,) * 3, (0.5,) * 3, "bicubic", 0.875, mode))
        assert word in text
        assert "bicubic" in text
        assert text.endswith("to 224 x 224")


def test_names_that_are_no_text_come_out_of_the_json_as_they_went_in():
    about = {"classes": ["Bär", "b\udcff", "a\nb", "\u202ex"]}
    for indent in (None, 1):
        assert json.loads(dump_description(about, indent).encode()) == about
