"""The four-cases study: records, settings of each policy, resuming after a kill, refused options."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import four_cases_study as module
from studies.four_cases_study import FourCasesConfig, run_four_cases
from studies.regret import find_best_by_other_seeds

from transfer.advice.rule import choose_epochs
from transfer.config.train import LearnConfig, TrainConfig
from transfer.errors import TransferError
from transfer.training.compare import correct_predictions
from transfer.training.train import train


@pytest.fixture
def study(config: Callable[..., TrainConfig]) -> Callable[..., FourCasesConfig]:
    """Make a study of the tiny set, quick unless a backbone learns; keywords go to whichever part has them."""

    def make(**settings: Any) -> FourCasesConfig:
        names = ("cases", "backbones", "policies")
        parts = {name: settings.pop(name) for name in names if name in settings}
        plain = LearnConfig(device="cpu", workers=2)
        named = {"data": "digits"} if "cases" in parts else {}  # as when nobody says --data
        options = {"epochs": plain.epochs, "batch_size": plain.batch_size} | named | settings
        return FourCasesConfig(config(**options), **({"policies": ("truncate:4",)} | parts))

    return make


def resumed(config: FourCasesConfig) -> FourCasesConfig:
    return replace(config, train=replace(config.train, run=replace(config.train.run, resume=True)))


def without_seconds(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what of the records does not depend on how busy the machine is."""
    stripped = [{name: value for name, value in record.items() if name != "seconds"} for record in records]
    for record in stripped:
        if "advice" in record:
            record["advice"] = record["advice"]["best"]["policy"], record["advice"]["best"]["accuracy"]
    return stripped


def test_every_policy_is_compared_with_the_advice(study: Any, tmp_path: Path, folder: Path) -> None:
    config = study(policies=("truncate:4", "partial:1"), seeds=(0, 1), out=tmp_path / "run", cases=(f"{folder}@4",))
    result = run_four_cases(config)
    runs = {(run["policy"], run["seed"]): run for run in result["records"]}
    assert list(runs)[:4] == [("auto", 0), ("linear_probe", 0), ("truncate:4", 0), ("partial:1", 0)]
    assert result["policies"] == ["linear_probe", "truncate:4", "partial:1"]

    # The advice and the runs are what `train` says by itself, of 4 labels a cell.
    data = replace(config.train.data, data=str(folder), shots=4)
    alone = replace(config.train, data=data, run=replace(config.train.run, out=None, seeds=(), seed=1))
    learn = replace(alone.learn, epochs=choose_epochs(24), batch_size=32, refit=True)
    for policy, settings in (("auto", alone.learn), ("truncate:4", alone.learn), ("partial:1", learn)):
        one = train(replace(alone, policy=replace(alone.policy, policy=policy), learn=settings))
        found = runs[policy, 1]
        if policy == "auto":
            assert found["labelled"] == 24
            assert found["similarity"] == one.result["advice"]["similarity"]
            assert found["advice"]["best"]["accuracy"] == one.result["advice"]["advice"]["best"]["accuracy"]
            assert found["images"] == list(map(str, one.tests[0][0].paths))
            continue
        assert found["accuracy"] == one.result["test"]["object"]["accuracy"]
        assert found["right"] == "".join(str(int(r)) for r in correct_predictions(one, "object")[0])

    (cell,) = result["cells"]
    reached = {p: [runs[p, seed]["accuracy"] for seed in (0, 1)] for p in result["policies"]}
    best = find_best_by_other_seeds(reached)
    advised = [runs["auto", seed]["advice"]["best"] for seed in (0, 1)]
    assert cell["advised"] == [one["policy"] for one in advised]
    assert cell["best"] == best
    mine = [runs[one["policy"], seed]["accuracy"] for seed, one in enumerate(advised)]
    assert cell["regret"] == pytest.approx([reached[best[seed]][seed] - mine[seed] for seed in (0, 1)])
    tested = [len(runs["auto", seed]["images"]) for seed in (0, 1)]
    for one, reached_here, n, within in zip(advised, mine, tested, cell["within"], strict=True):
        sd = (one["sd"] ** 2 + one["accuracy"] * (1 - one["accuracy"]) / n) ** 0.5
        assert within == (abs(reached_here - one["accuracy"]) <= 1.959964 * sd)
    assert result["summary"]["regret"] == pytest.approx(np.mean(cell["regret"]))
    assert cell["against_best"]["images"] == len({p for seed in (0, 1) for p in runs["auto", seed]["images"]})

    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result["records"]
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == json.loads(json.dumps(result))


def test_a_killed_study_resumes(study: Any, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = study(seeds=(0, 1), policies=("truncate:4", "truncate:3"), cases=(str(folder),))
    whole = run_four_cases(config)
    done: list[tuple[int, str]] = []

    def killed(run_config: TrainConfig, **more: Any) -> Any:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append((run_config.run.seed, run_config.policy.policy))
        return train(run_config, **more)

    saved = replace(config, train=replace(config.train, run=replace(config.train.run, out=tmp_path / "run")))
    monkeypatch.setattr(module, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        run_four_cases(saved)
    lines = tmp_path / "run" / "metrics.jsonl"
    with lines.open("a") as file:
        file.write('{"backbone": "test_res')  # half a line

    def counted(run_config: TrainConfig, **more: Any) -> Any:
        done.append((run_config.run.seed, run_config.policy.policy))
        return train(run_config, **more)

    monkeypatch.setattr(module, "train", counted)
    monkeypatch.setattr(module, "advise_policy", None)  # both seeds have theirs
    result = run_four_cases(resumed(saved))
    assert {policy for _, policy in done} >= {"linear_probe", "truncate:4", "truncate:3"}
    assert Counter(done) == Counter((r["seed"], r["policy"]) for r in whole["records"] if r["policy"] != "auto")
    assert without_seconds(result["records"]) == without_seconds(whole["records"])
    assert (result["cells"], result["summary"]) == (whole["cells"], whole["summary"])

    done.clear()
    second = run_four_cases(resumed(saved))
    assert not done
    assert second["records"] == result["records"]
    with pytest.raises(TransferError, match="has another policies"):
        run_four_cases(replace(resumed(saved), policies=("full",)))
    with pytest.raises(TransferError, match="already holds a run"):
        run_four_cases(saved)


def test_a_failed_run_has_its_reason(study: Any, folder: Path) -> None:
    result = run_four_cases(study(policies=("truncate:99", "truncate:4"), seeds=(0, 1), cases=(str(folder),)))
    failed = [run for run in result["records"] if "failed" in run]
    assert {run["policy"] for run in failed} == {"truncate:99"}
    assert "5 stages" in failed[0]["failed"]
    assert all(set(cell["best"]) <= {"linear_probe", "truncate:4"} for cell in result["cells"])


def test_settings_by_policy_and_an_advised_one_that_is_not_listed(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: dict[str, tuple[int, int, bool | None]] = {}
    reads: list[str] = []

    def refused(run_config: TrainConfig, **more: Any) -> Any:
        learnt[run_config.policy.policy] = (
            run_config.learn.epochs,
            run_config.learn.batch_size,
            run_config.learn.refit,
        )
        raise TransferError("not now")

    advise, read = module.advise_policy, module.read_images

    def other(*args: Any) -> Any:
        advised = advise(*args)
        advised.record["advice"]["best"]["policy"] = "lp_ft:3"
        return advised

    monkeypatch.setattr(module, "train", refused)
    monkeypatch.setattr(module, "advise_policy", other)
    monkeypatch.setattr(module, "read_images", lambda data, *more: reads.append(data.data) or read(data, *more))
    policies = ("full", "truncate:1", "truncate:1+partial:2", "head2toe", "full")
    result = run_four_cases(study(policies=policies))  # one seed, 5 labels and all: 30 and 38 images
    plain, many = (30, 64, None), (choose_epochs(38), 32, True)
    assert learnt == {
        "linear_probe": plain,
        "full": many,
        "truncate:1": plain,
        "truncate:1+partial:2": many,
        "head2toe": plain,
        "lp_ft:3": many,
    }
    assert len(reads) == 1
    assert [cell["case"].rpartition("/")[2] for cell in result["cells"]] == [
        f"{Path(reads[0]).name}@5",
        Path(reads[0]).name,
    ]
    for cell in result["cells"]:
        assert cell["advised"] == ["lp_ft:3"]
        assert (cell["accuracy"], cell["within"], cell["regret"]) == ([None], [None], [])
    assert result["summary"]["regret"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": 3}, "--cases DATA@LABELS not --shots"),
        ({"policy": "full"}, "--policies not --policy"),
        ({"policies": ("probe",)}, "unknown policy 'probe'"),
        ({"policies": ("auto",)}, "auto is compared with the others"),
        ({"cases": ("digits@5",), "data": "mine"}, "--cases names the data: leave --data out"),
        ({"cases": ("nowhere@5",)}, "no data set or folder 'nowhere'"),
        ({"cases": ("@5",)}, "no data set or folder '@5'"),
        ({"cases": ("digits@0",)}, "--shots 0"),
        ({"backbones": ("glyphnet",)}, "--backbones names the networks"),
        ({"backbones": ("glyphnet", "resnet51"), "backbone": "tf_efficientnet_lite0"}, "resnet51"),
        ({"epochs": 7}, "--epochs: every policy has the settings of the advice"),
        ({"batch_size": 8}, "--batch-size: every policy"),
        ({"optimizer": "adamx"}, "adamx"),
        ({"test": 0.0}, "no test images"),
        ({"resume": True}, "--resume needs the folder of the run"),
    ],
)
def test_what_is_refused(study: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TransferError, match=message):
        run_four_cases(study(**settings))
