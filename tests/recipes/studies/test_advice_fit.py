"""The fit of expected gains: it finds the constants that made the rows, and reads the table of measured means."""

from dataclasses import replace

import numpy as np
import pytest
from studies.advice_fit import (
    FITTED,
    WIDTH,
    FineTunedMean,
    expect_gain,
    fit_gains,
    fit_text,
    fit_width,
    leave_one_out,
    measure_error,
    read_means,
    set_constants,
)

from transfer.advice import rule

MADE = {"similar": 0.35, "between": 0.62, "different": 0.48, "unnormalised": 0.4, "third": 0.7}


def make_mean(kind="similar", *, labelled=600, normalised=True, part="all", probe=0.8, backbone="a", images="x"):
    """Return a row whose gain follows from MADE, by the formula of the README."""
    error = 1 - probe
    gain = MADE[kind] * labelled / (labelled + 300) * (1 - error) ** 2 * error
    gain *= (1 if normalised else MADE["unnormalised"]) * (MADE["third"] if part == "third" else 1)
    return FineTunedMean(
        backbone, images, images, "lp_ft", part, kind, labelled, normalised, probe, probe + gain, 10**7, 3
    )


@pytest.fixture
def made():
    return [
        make_mean(kind, labelled=n, normalised=normalised, part=part, probe=probe, backbone=backbone, images=images)
        for kind in ("similar", "between", "different")
        for n, probe, images in ((200, 0.7, "x"), (2000, 0.85, "y"))
        for normalised, backbone in ((True, "a"), (False, "b"), (True, "c"))
        for part in ("all", "third")
    ]


def test_an_expected_gain_is_the_formula_under_the_constants():
    row = make_mean("between", labelled=900, normalised=False, part="third", probe=0.75)
    expected = 0.5 * 0.75 * 0.75**2 * 0.25 * 0.25 * 0.5
    with set_constants(
        {
            "advice.rule:FINE_TUNING_GAIN[between]": 0.5,
            "advice.rule:UNNORMALISED_GAIN": 0.25,
            "advice.rule:LAST_THIRD_GAIN": 0.5,
        }
    ):
        assert expect_gain(row) == pytest.approx(expected)
    assert expect_gain(row) != pytest.approx(expected)  # the constants are back


def test_the_fit_finds_the_constants_that_made_the_rows(made, monkeypatch):
    loose = {place: (mean, 1e3 * mean) for place, (mean, _) in FITTED.items()}
    monkeypatch.setattr("studies.advice_fit.FITTED", loose)
    monkeypatch.setattr("studies.advice_fit.BETWEEN_SETS_SD", 1e-5)
    wrong = replace(made[0], part="other", accuracy=0.1)  # of a policy that is never advised
    fit = fit_gains([*made, wrong])
    assert list(fit) == [*FITTED, WIDTH]
    assert np.allclose(list(fit.values())[:-1], [*MADE.values(), 300], rtol=1e-2)
    assert fit[WIDTH] == 0.02  # the least that is tried
    with set_constants(fit):
        assert measure_error(made) < 0.01
    assert measure_error(made) > 0.2
    before = rule.FINE_TUNING_GAIN["similar"]
    assert before != fit["advice.rule:FINE_TUNING_GAIN[similar]"]


def test_the_width_is_that_of_the_distances(made):
    """Gains are moved up and down by a share of the errors that any number of images could fix."""
    rows = [replace(row, tested=10**9) for row in made for _ in range(10)]
    signs = np.random.default_rng(0).normal(size=len(rows))
    error = np.array([1 - row.probe for row in rows])
    moved = [
        replace(row, accuracy=row.probe + expect_gain(row) + shift)
        for row, shift in zip(rows, signs * (0.2 * (1 - error) ** 2 * error + 0.003), strict=True)
    ]
    assert fit_width(moved) == pytest.approx(0.2, abs=0.02)
    assert fit_width([replace(row, tested=20) for row in moved]) < 0.2  # test images explain a part


def test_without_rows_the_prior_decides(made):
    few = [row for row in made if row.kind == "similar" and row.normalised and row.part == "all"]
    fit = fit_gains(few)
    assert fit["advice.rule:FINE_TUNING_GAIN[different]"] == pytest.approx(0.5, abs=1e-3)
    assert 0.3 < fit["advice.rule:FINE_TUNING_GAIN[similar]"] < 0.5  # between what made the rows and the prior


def test_what_is_left_out_has_no_part_in_its_fit(made):
    fits = leave_one_out(made, "backbone")
    assert list(fits) == ["a", "b", "c"]
    changed = [replace(row, accuracy=0.1) if row.backbone == "b" else row for row in made]
    again = leave_one_out(changed, "backbone")
    assert again["b"] == fits["b"]
    assert again["a"] != fits["a"]
    assert leave_one_out(made, "images")["x"] == fit_gains(row for row in made if row.images == "y")


def test_errors_are_root_mean_squares_in_points(made):
    assert measure_error(made[:2], lambda row: row.gain + 0.02) == pytest.approx(2.0)
    text = fit_text(made)
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["as", "none", "a", "b", "c", "x", "y"]


def test_the_table_of_means_holds_what_the_fit_needs():
    means = read_means()
    assert len({(row.backbone, row.case, row.policy) for row in means}) == len(means)
    for row in means:
        assert row.kind in rule.FINE_TUNING_GAIN
        assert 0 < row.probe <= 1
        assert 0 < row.accuracy <= 1
        assert row.part == ("all" if row.policy == "lp_ft" else row.part) in ("all", "third", "other")
        assert row.normalised is (row.backbone != "torchvision:squeezenet1_1")
        assert row.seeds in (1, 2, 3)
