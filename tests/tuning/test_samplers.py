import math
from typing import Any

import pytest

from transfer.config.commands import SearchConfig
from transfer.tuning.samplers import Proposals, TrialStudy, rank_trials
from transfer.tuning.space import Settings, parse_space

SPACE = parse_space(["lr=1e-5:1", "weight_decay=1e-6:1", "optimizer=adamw,sgd"])


def height(settings: Settings) -> float:
    """A peak at a rate of 0.01; the rest hardly matters."""
    return -abs(math.log10(float(settings["lr"])) + 2) + 0.01 * math.log10(float(settings["weight_decay"]))


def tried(config: SearchConfig, records: list[dict[str, Any]], until: int) -> list[dict[str, Any]]:
    """Go on from `records` with new proposals, as a search that was stopped does."""
    proposals, records = Proposals(SPACE, config), list(records)
    while len(records) < min(until, proposals.total):
        stage, settings = proposals.next(records)
        records.append(
            {"trial": len(records), "stage": stage, "settings": settings, "val_acc": round(height(settings), 6)}
        )
    return records


@pytest.mark.parametrize("sampler", ["random", "grid", "tpe"])
def test_a_search_that_was_stopped_goes_on_as_if_it_were_not(sampler: Any) -> None:
    config = SearchConfig(trials=40, sampler=sampler)
    whole = tried(config, [], 40)
    for stop in (1, 13, 24, 30):
        assert tried(config, tried(config, [], stop), 40) == whole
    assert tried(SearchConfig(trials=40, sampler=sampler), [], 40) == whole


def test_the_seed_draws() -> None:
    from dataclasses import replace

    config = SearchConfig(trials=5)
    other = replace(config, train=replace(config.train, run=replace(config.train.run, seed=1)))
    first, second = tried(config, [], 5), tried(other, [], 5)
    assert not {r["settings"]["lr"] for r in first} & {r["settings"]["lr"] for r in second}


def test_fine_trials_lie_around_the_best_of_the_coarse_ones() -> None:
    records = tried(SearchConfig(trials=100, fine=0.5), [], 100)
    coarse = [r["settings"]["lr"] for r in records if r["stage"] == "coarse"]
    fine = [r["settings"]["lr"] for r in records if r["stage"] == "fine"]
    assert [r["stage"] for r in records] == ["coarse"] * 50 + ["fine"] * 50
    good = sorted(coarse, key=lambda lr: abs(math.log10(lr) + 2))[:5]
    margin = 10 ** (0.05 * 5)
    assert min(good) / margin <= min(fine)
    assert max(fine) <= max(good) * margin
    assert {r["stage"] for r in tried(SearchConfig(trials=20, fine=0.0), [], 20)} == {"coarse"}


def test_random_has_as_many_rates_as_trials_and_a_grid_has_few() -> None:
    random = tried(SearchConfig(trials=50, fine=0.0), [], 50)
    grid = tried(SearchConfig(trials=50, sampler="grid"), [], 50)
    assert len({r["settings"]["lr"] for r in random}) == 50
    assert len(grid) == 50  # 5 x 5 x 2
    assert len({r["settings"]["lr"] for r in grid}) == 5
    assert len({tuple(r["settings"].values()) for r in grid}) == 50


def test_tpe_finds_the_peak() -> None:
    records = tried(SearchConfig(trials=60, sampler="tpe"), [], 60)
    late = [abs(math.log10(r["settings"]["lr"]) + 2) for r in records[40:]]
    random = [abs(math.log10(r["settings"]["lr"]) + 2) for r in tried(SearchConfig(trials=60, fine=0.0), [], 60)]
    assert sorted(late)[10] < 0.5 * sorted(random)[30]


def test_what_matters_is_named_first() -> None:
    records = tried(SearchConfig(trials=60, fine=0.0), [], 60)
    shares = TrialStudy(SPACE).importance(records)
    assert next(iter(shares)) == "lr"
    assert shares["lr"] > 0.7
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert TrialStudy(SPACE).importance(records[:5]) == {}
    assert TrialStudy(SPACE).importance([r | {"val_acc": 0.5} for r in records]) == {}


def test_of_equals_the_earlier_is_better() -> None:
    records = [{"trial": i, "val_acc": v} for i, v in enumerate((0.2, 0.9, 0.9, 0.1))]
    assert [r["trial"] for r in rank_trials(records)] == [1, 2, 0, 3]
