import json
from dataclasses import replace

import numpy as np
import pytest

from transfer.advice import rule
from transfer.advice.transferability.size import scale
from transfer.config.train import LearnConfig, RegulariseConfig
from transfer.data.splits import split
from transfer.feature_cache import TrunkCache
from transfer.training import auto_policy
from transfer.training.auto_policy import advise_policy, apply_advice, how
from transfer.training.setup import Images, read_images
from transfer.training.train import train


@pytest.fixture
def told(config):
    def ask(images=None, **settings):
        one = config(**settings)
        cache = TrunkCache(one.cache)
        images = images or read_images(one.data, cache.store)
        parts = split(images.table, images.inspection, test=0.25, val=0.25, shots=one.data.shots, seed=one.run.seed)
        return one, parts, advise_policy(one, images, parts, cache)

    return ask


def test_the_record_is_json_and_says_what_the_advice_does(told):
    _, parts, found = told()
    record = json.loads(json.dumps(found.record))
    assert record["advice"]["best"]["policy"] == found.advice.best.policy == found.advice.settings["policy"]
    assert record["size"]["labelled"] == len(parts.train) + len(parts.val) == record["judged"]
    assert record["advice"]["size"] == scale(36, 12) == "small"
    assert set(record["probes"]) == set(found.evidence.probes)
    assert record["advice"]["best"]["interval"] == list(found.advice.best.interval)


def test_test_labels_and_labels_that_shots_leave_out_change_nothing(told, config):
    images = read_images(config().data)
    table = images.table
    one, parts, before = told(images, shots=4)
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
def test_what_a_run_could_not_solve_is_not_advised(told, settings):
    every = {"head2toe", "stage_probes"}
    assert every <= {candidate.policy for candidate in told()[2].advice.ranked}
    found = told(**settings)[2]
    assert not every & {candidate.policy for candidate in found.advice.ranked}
    assert every <= set(found.evidence.probes)


def test_settings_are_taken_over_and_all_else_is_kept(told, caplog):
    one, _, found = told(lr=0.02)
    with caplog.at_level("INFO"):
        now = apply_advice(one, found.advice)
    assert f"advised, as the set is {found.advice.case}: {found.advice.best.policy}, " in caplog.text
    assert now.policy.policy == found.advice.best.policy
    assert now.learn.lr == 0.02
    assert (now.data, now.backbone, now.run) == (one.data, one.backbone, one.run)


def test_what_a_run_sets_itself_is_kept_and_said(told, caplog):
    advice = replace(told()[2].advice, settings={"policy": "lp_ft", "epochs": 60, "batch_size": 32, "refit": True})
    with caplog.at_level("INFO"):
        now = apply_advice(told(epochs=2, batch_size=LearnConfig.batch_size, refit=False)[0], advice)
    assert (now.learn.epochs, now.learn.batch_size, now.learn.refit) == (2, 32, False)
    assert "kept as asked: epochs 2, refit False" in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {"regularise": RegulariseConfig(mixup=0.2)},
        {"loss": "hinge"},
        {"regularise": RegulariseConfig(l2_sp=0.1), "probe": "trained"},
    ],
)
def test_options_that_a_frozen_backbone_refuses_are_followed(told, settings):
    one, _, found = told(**settings)
    assert found.advice.best.policy.startswith("lp_ft")
    assert train(replace(apply_advice(one, found.advice), learn=replace(one.learn, epochs=2))).result["test"]


def test_images_without_labels_count_for_similarity(config, told, monkeypatch):
    images = read_images(config().data)
    seen = {}

    def sample(table, learn, others, seed):
        seen["others"] = others
        return sampled(table, learn, others, seed)

    sampled = auto_policy.sample
    monkeypatch.setattr("transfer.training.auto_policy.sample", sample)
    one, parts, _ = told(images)
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
def test_how_says_what_the_policy_does(config, told, policy, epochs, frozen, learning, dropped, features):
    one, _, found = told()
    best = replace(found.advice.best, policy=policy, epochs=epochs)
    said = how(one, replace(found.advice, best=best), list("abcd"))
    got = ["".join(said[name]) for name in ("frozen", "learning", "dropped", "features")]
    assert got == [frozen, learning, dropped, features]


def test_random_weights_tell_nothing_of_what_is_similar(told):
    assert told()[2].advice.case.startswith("small and ")
    found = told(random_init=True)[2]
    assert found.record["similarity"]["distance"] == {}
    assert found.record["similarity"]["informed"] is None
    assert found.record["advice"]["case"] == "small and of unknown similarity"


def test_near_copies_stay_together_if_the_run_wants_them_to(told):
    assert not told()[2].evidence.near_together
    assert told(keep_near_duplicates_together=True)[2].evidence.near_together


def test_images_are_counted(told):
    one, parts, found = told(shots=4)
    total = len(read_images(one.data).table)
    said = f"of {total} images {len(parts.test)} are kept for testing, {len(parts.train) + len(parts.val)} are labelled"
    assert said in found.advice.reasons[0]


def test_the_rule_is_told_whether_there_are_norms(told, monkeypatch):
    asked, advised_by = [], rule.advise

    def advise(*arguments, **named):
        asked.append(arguments[2].normed)
        return advised_by(*arguments, **named)

    monkeypatch.setattr("transfer.training.auto_policy.rule.advise", advise)
    told()
    monkeypatch.setattr("transfer.freeze.is_norm", lambda module: False)
    told()
    assert asked == [True, False]


def test_what_the_first_process_advises_is_followed(told, monkeypatch):
    one, _, found = told(epochs=LearnConfig.epochs)
    monkeypatch.setattr(
        "transfer.training.auto_policy.distributed.same", lambda _: {"policy": "partial:1", "epochs": 7}
    )
    after = apply_advice(one, found.advice)
    assert (after.policy.policy, after.learn.epochs) == ("partial:1", 7)
