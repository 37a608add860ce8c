import json
from dataclasses import replace

import numpy as np
import pytest

from transfer.advice.transferability.size import classify_size
from transfer.config.train import LearnConfig, RegulariseConfig
from transfer.data.splits import split
from transfer.feature_cache import TrunkCache
from transfer.training import auto_policy
from transfer.training.auto_policy import advise_policy, apply_advice, describe_advised_plan
from transfer.training.setup import Images, read_images
from transfer.training.train import train


@pytest.fixture
def advise(config):
    def run(images=None, **settings):
        one = config(**settings)
        cache = TrunkCache(one.cache)
        images = images or read_images(one.data, cache.disk_cache)
        parts = split(images.table, images.inspection, test=0.25, val=0.25, shots=one.data.shots, seed=one.run.seed)
        return one, parts, advise_policy(one, images, parts, cache)

    return run


def test_the_record_is_json_and_agrees_with_the_advice(advise):
    _, parts, found = advise()
    record = json.loads(json.dumps(found.record))
    assert record["advice"]["best"]["policy"] == found.advice.best.policy == found.advice.settings["policy"]
    assert record["size"]["labelled"] == len(parts.train) + len(parts.val) == record["judged"]
    assert record["advice"]["size"] == classify_size(36, 12) == "small"
    assert set(record["probes"]) == set(found.evidence.probes)
    assert record["advice"]["best"]["interval"] == list(found.advice.best.interval)


def test_test_labels_and_labels_that_shots_leave_out_change_nothing(advise, config):
    images = read_images(config().data)
    table = images.table
    one, parts, before = advise(images, shots=4)
    hidden = np.setdiff1d(np.arange(len(table)), np.concatenate([parts.train, parts.val]))
    table.object[hidden] = np.roll(table.object[hidden], 5)
    try:
        cache = TrunkCache(one.cache)
        after = advise_policy(one, Images(table, images.inspection), parts, cache)
    finally:
        table.object[hidden] = np.roll(table.object[hidden], -5)
    changing = ("seconds", "costs", "advice")  # timings
    assert {k: v for k, v in before.record.items() if k not in changing} == {
        k: v for k, v in after.record.items() if k not in changing
    }
    assert before.advice.best.accuracy == after.advice.best.accuracy


@pytest.mark.parametrize("settings", [{"hidden": (8,)}, {"probe": "trained"}, {"augment": "flip"}])
def test_policies_that_a_run_cannot_solve_are_not_advised(advise, settings):
    every = {"head2toe", "stage_probes"}
    assert every <= {candidate.policy for candidate in advise()[2].advice.ranked}
    found = advise(**settings)[2]
    assert not every & {candidate.policy for candidate in found.advice.ranked}
    assert every <= set(found.evidence.probes)


def test_advised_settings_are_applied_and_no_others(advise, caplog):
    one, _, found = advise(lr=0.02)
    with caplog.at_level("INFO"):
        now = apply_advice(one, found.advice)
    assert f"advice for a set that is {found.advice.case}: policy {found.advice.best.policy}, " in caplog.text
    assert now.policy.policy == found.advice.best.policy
    assert now.learn.lr == 0.02
    assert (now.data, now.backbone, now.run) == (one.data, one.backbone, one.run)


def test_own_settings_stay_and_are_logged(advise, caplog):
    advice = replace(advise()[2].advice, settings={"policy": "lp_ft", "epochs": 60, "batch_size": 32, "refit": True})
    with caplog.at_level("INFO"):
        now = apply_advice(advise(epochs=2, batch_size=LearnConfig.batch_size, refit=False)[0], advice)
    assert (now.learn.epochs, now.learn.batch_size, now.learn.refit) == (2, 32, False)
    assert "settings that differ from the defaults stay: epochs 2, refit False" in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {"regularise": RegulariseConfig(mixup=0.2)},
        {"loss": "hinge"},
        {"regularise": RegulariseConfig(l2_sp=0.1), "probe": "trained"},
    ],
)
def test_options_without_effect_on_a_frozen_backbone_lead_to_fine_tuning(advise, settings):
    one, _, found = advise(**settings)
    assert found.advice.best.policy.startswith("lp_ft")
    assert train(replace(apply_advice(one, found.advice), learn=replace(one.learn, epochs=2))).result["test"]


def test_images_without_labels_count_for_similarity(config, advise, monkeypatch):
    images = read_images(config().data)
    seen = {}

    def sample(table, learn, others, seed):
        seen["others"] = others
        return sampled(table, learn, others, seed)

    sampled = auto_policy.sample_rows
    monkeypatch.setattr("transfer.training.auto_policy.sample_rows", sample)
    one, parts, _ = advise(images)
    before, hidden = set(seen["others"]), parts.train[::3]
    known = images.table.object[hidden].copy()
    images.table.object[hidden] = -1
    try:
        advise_policy(one, images, parts, TrunkCache(one.cache))
    finally:
        images.table.object[hidden] = known
    assert set(seen["others"]) == before | set(hidden)


def test_train_follows_it_for_every_seed_on_its_own_split(config, tmp_path):
    run = train(config(policy="auto", seeds=(0, 1), out=tmp_path / "run"))
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["config"]["policy"]["policy"] == "auto"
    for each in saved["seeds"]:
        assert each["policy"]["name"] == each["advice"]["advice"]["best"]["policy"]
        assert each["policy"]["frozen_unchanged"]
    assert run.result["test"]["object"]["accuracy"] > 0.5
    followed_by_hand = train(config(policy=saved["seeds"][1]["policy"]["name"], seed=1))
    if not saved["seeds"][1]["advice"]["advice"]["best"]["epochs"]:
        np.testing.assert_array_equal(run.tests[1][1]["object"], followed_by_hand.tests[0][1]["object"])


@pytest.mark.parametrize(
    ("policy", "epochs", "frozen", "learning", "dropped", "features"),
    [
        ("linear_probe", 0, "abcd", "", "", "d"),
        ("truncate:1", 0, "abc", "", "d", "c"),
        ("head2toe", 0, "abcd", "", "", "abcd"),
        ("stage_probes", 0, "abcd", "", "", "abcd"),
        ("lp_ft:1", 6, "abc", "d", "", "d"),
        ("lp_ft", 6, "", "abcd", "", "d"),
    ],
)
def test_the_plan_is_described(config, advise, policy, epochs, frozen, learning, dropped, features):
    one, _, found = advise()
    best = replace(found.advice.best, policy=policy, epochs=epochs)
    described = describe_advised_plan(one, replace(found.advice, best=best), list("abcd"))
    got = ["".join(described[name]) for name in ("frozen", "learning", "dropped", "features")]
    assert got == [frozen, learning, dropped, features]


def test_random_weights_do_not_measure_similarity(advise):
    assert advise()[2].advice.case.startswith("small and ")
    found = advise(random_init=True)[2]
    assert found.record["similarity"]["distance"] == {}
    assert found.record["similarity"]["informed"] is None
    assert found.record["advice"]["case"] == "small and of unknown similarity"


def test_near_duplicates_stay_together_on_request(advise):
    assert not advise()[2].evidence.near_together
    assert advise(keep_near_duplicates_together=True)[2].evidence.near_together


def test_images_are_counted(advise):
    one, parts, found = advise(shots=4)
    total = len(read_images(one.data).table)
    reason = found.advice.reasons[0]
    assert f"{len(parts.train) + len(parts.val)} labelled training images" in reason
    assert f"{len(parts.test)} of {total} images are reserved for testing" in reason


def test_the_rule_knows_whether_there_are_norms(advise, monkeypatch):
    normalised, derive = [], auto_policy.derive_advice

    def derive_advice(*arguments):
        normalised.append(arguments[2].normalised)
        return derive(*arguments)

    monkeypatch.setattr("transfer.training.auto_policy.derive_advice", derive_advice)
    advise()
    monkeypatch.setattr("transfer.freeze.is_norm", lambda module: False)
    advise()
    assert normalised == [True, False]


def test_every_process_follows_rank_0(advise, monkeypatch):
    one, _, found = advise(epochs=LearnConfig.epochs)
    monkeypatch.setattr(
        "transfer.training.auto_policy.distributed.broadcast", lambda _: {"policy": "partial:1", "epochs": 7}
    )
    after = apply_advice(one, found.advice)
    assert (after.policy.policy, after.learn.epochs) == ("partial:1", 7)
