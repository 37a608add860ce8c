import asyncio
import hashlib

import pytest
from upload_files import HOSTILE, encode

from transfer.data.images.preprocessing import locate_view
from transfer.server.uploads import RequestRefused, UploadedFile


@pytest.fixture(scope="module")
def service(make_service, served_folder):
    started = make_service(served_folder)
    started.start()
    yield started
    started.close()


def ask(work):
    return asyncio.run(work)


def test_an_answer_has_name_digest_run_and_prediction(service):
    content = encode("red")
    answer, image, features = ask(service.predict(UploadedFile("a.png", content), 0, top=1))
    assert answer["name"] == "a.png"
    assert answer["sha256"] == hashlib.sha256(content).hexdigest()
    assert answer["run"] == service.runs[0].name
    assert len(answer["prediction"]["object_top"]) == 1
    assert features.shape == (service.runs[0].main_model.backbone.width,)
    assert (image.height, image.width) == (32, 32)


def test_all_images_are_answered_in_order_or_have_an_error(service):
    files = [UploadedFile("a", encode("blue")), UploadedFile("b", HOSTILE["text"]), UploadedFile("c", encode("red"))]
    first, second, third = ask(service.predict_all(files, 0, 3))
    assert (first["name"], second["code"], third["name"]) == ("a", "wrong_type", "c")
    assert first["prediction"] == ask(service.predict(files[0], 0, 3))[0]["prediction"]


def test_an_explanation_says_where_the_network_looks(service):
    answer, image, _ = ask(service.predict(UploadedFile("a", encode("blue", size=(90, 40))), 0, 5))
    found = ask(service.explain(0, image, answer["prediction"]))
    assert found["label"] == answer["prediction"]["object_top"][0][0]
    assert found["view"] == pytest.approx(locate_view(40, 90, service.runs[0].preprocessing), abs=1e-4)


@pytest.mark.parametrize(
    ("labels", "other"),
    [(["red"] * 3, "blue"), (["red", "blue", "blue"], "blue"), (["blue"] * 3, "red"), (["green"] * 3, "blue")],
)
def test_the_second_class_gives_way_where_the_nearest_are_all_of_it(service, monkeypatch, labels, other):
    def find(features, digest, label=None):
        return [{"labels": {"object": each}} for each in ([label] if label else labels)]

    monkeypatch.setattr(service.indexes[0], "find", find)
    found = ask(service.find_neighbours(0, None, "", {"object_top": [["red", 0.6], ["blue", 0.3]]}))
    assert [each["labels"]["object"] for each in found["nearest"]] == labels
    assert found["next"] == {"label": other, "nearest": [{"labels": {"object": other}}]}


def test_what_is_missing_is_refused(service):
    with pytest.raises(RequestRefused, match="no run 1"):
        service.get_run(1)
    with pytest.raises(RequestRefused, match="gone"):
        ask(service.draw_training_image(0, 10_000))


def test_two_runs_of_one_name_are_told_apart_by_their_folders(make_service, served_folder):
    service = make_service(served_folder, served_folder / "model.safetensors")
    assert [run.name for run in service.runs] == [str(served_folder)] * 2


def test_a_busy_server_says_when_to_try_again(service):
    refused = service.refuse_busy(100)
    assert (refused.status, refused.retry_after) == (503, 6)


def test_only_whole_images_are_stored_as_corrections(make_service, run_folder):
    service = make_service(run_folder)
    service.start()
    try:
        with pytest.raises(RequestRefused):
            ask(service.correct(0, UploadedFile("a", HOSTILE["cut PNG"]), "red", None))
        assert not (run_folder / "corrections").exists()
        assert ask(service.correct(0, UploadedFile("a", encode("red")), "green", 0))
        assert [each["label"] for each in service.corrections[0].list_corrections()] == ["green"]
    finally:
        service.close()
