from types import SimpleNamespace

import numpy as np
import pytest

from transfer.data.table import ImageTable, make_softmax_target
from transfer.errors import TransferError
from transfer.formats import int8_comparison
from transfer.formats.int8_comparison import Int8Comparison, compare_models, measure_speed

ACCURACY = {"object": {"float32": 0.90, "int8": 0.89}}


def test_a_comparison_is_refused_with_its_figures():
    Int8Comparison(b"", b"", ACCURACY, 100, 1.0).check(0.01)
    with pytest.raises(
        TransferError, match=r"object accuracy 0\.890, float32 0\.900 on 100 test images.*allows 0\.005"
    ):
        Int8Comparison(b"", b"", ACCURACY, 100, 1.0).check(0.005)
    with pytest.raises(TransferError, match=r"int8 computes 0\.97 times as many images/s"):
        Int8Comparison(b"", b"", ACCURACY, 100, 0.97).check(0.01)


def test_its_lines_have_accuracy_size_and_speed():
    lines = Int8Comparison(bytes(4_200_000), bytes(1_300_000), ACCURACY, 1200, 1.5).lines()
    assert lines[0] == "object accuracy on 1,200 test images: int8 0.890, float32 0.900"
    assert lines[1].startswith("1.3 MB, float32 4.2 MB; images/s here")
    assert lines[1].endswith("1.50 times float32's")


@pytest.fixture
def fake(monkeypatch):
    """Sessions whose predictions for an image are the bytes of the model at the image's number."""

    def run(session, images):
        return {"object": np.array([[float(session[n] == c) for c in range(3)] for n in images])}

    monkeypatch.setattr(int8_comparison, "open_onnx", lambda content, **how: content)
    monkeypatch.setattr(int8_comparison, "run_onnx", run)
    monkeypatch.setattr(int8_comparison, "measure_speed", lambda *a: 2.0)
    return SimpleNamespace(read=lambda title: iter([np.arange(3), np.arange(3, 5)]))


def table_of(objects):
    empty = np.full(len(objects), "")
    targets = {"object": make_softmax_target(objects), "domain": make_softmax_target(empty.tolist())}
    return ImageTable(empty, targets, empty, empty)


def test_accuracy_is_that_of_each_model_on_all_batches(fake):
    compared = compare_models(bytes([0, 1, 2, 0, 1]), bytes([0, 1, 0, 0, 0]), fake, table_of(list("abcab")))
    assert compared.accuracy == {"object": {"float32": 1.0, "int8": 0.6}}
    assert (compared.n, compared.speed) == (5, 2.0)


def test_labels_are_needed(fake):
    with pytest.raises(TransferError, match="no test image has a label"):
        compare_models(bytes(5), bytes(5), fake, table_of([""] * 5))


def test_speed_is_a_ratio_of_medians_measured_in_turns(monkeypatch):
    clock, turns = [0.0], []

    def open_onnx(content, threads):
        assert threads == 1

        def run(names, inputs):
            turns.append(content)
            clock[0] += {b"slow": 3.0, b"fast": 2.0}[content] * (50 if len(turns) % 17 == 0 else 1)

        return SimpleNamespace(run=run)

    monkeypatch.setattr(int8_comparison, "open_onnx", open_onnx)
    monkeypatch.setattr(int8_comparison, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert measure_speed(b"slow", b"fast", np.zeros(1)) == pytest.approx(1.5)
    assert turns[::2] == [b"slow"] * (len(turns) // 2)
