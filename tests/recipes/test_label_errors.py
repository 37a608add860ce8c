import label_errors
import numpy as np
import pytest

from transfer.config.curation import InspectConfig
from transfer.config.shared import BackboneConfig, ImagesConfig
from transfer.curation.inspection.label_suspects import rank_labels


@pytest.fixture
def clusters():
    rng, truth = np.random.default_rng(0), np.arange(120) % 3
    return (np.eye(3, 12)[truth] * 3 + rng.normal(0, 0.4, (120, 12))).astype(np.float32), truth


def test_labels_are_flipped_to_any_other_class_or_to_the_most_confused_one(clusters):
    features, truth = clusters
    features[truth == 1, 0] += 2.5  # class 1 looks like class 0
    probabilities = rank_labels(features, truth).probabilities
    known = np.where(np.arange(120) < 30, -1, truth)
    for kind in ("uniform", "confused"):
        flipped = label_errors.flip(known, probabilities, kind, 0.2, 0)
        changed = np.flatnonzero(flipped != known)
        assert len(changed) == 18
        assert changed.min() >= 30
    assert (flipped[changed][truth[changed] == 1] == 0).all()
    assert (flipped[changed][truth[changed] == 0] == 1).all()


def test_of_separable_classes_all_wrong_labels_are_found_and_mended(clusters):
    features, truth = clusters
    scores = label_errors.measure(features, truth, np.arange(120), 0)
    found, named, right, seen, mended, before, after, correct = scores[label_errors.CASES.index(("uniform", 0.1))]
    assert found == right == mended == 1
    assert named == pytest.approx(0.1, abs=0.01)
    assert seen >= named
    assert after == correct >= before


def test_it_prints_a_table(folder, capsys, monkeypatch):
    monkeypatch.setattr(label_errors, "SEEDS", 1)
    monkeypatch.setattr(label_errors, "CASES", label_errors.CASES[:2])
    label_errors.main(InspectConfig(ImagesConfig(str(folder)), BackboneConfig("glyphnet"), device="cpu"))
    head, none, flipped = capsys.readouterr().out.strip().splitlines()
    assert len(head.split()) - 1 == len(none.split()) == 9
    assert flipped.startswith("uniform 5%")
