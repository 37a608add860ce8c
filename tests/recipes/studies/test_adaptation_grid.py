import json
from dataclasses import replace

import pytest
from studies.adaptation_grid import GridConfig, grid_text, run_grid

from transfer.adaptation.adapt import adapt
from transfer.errors import TransferError


def test_every_method_policy_and_pair_is_run_as_if_alone(adapt_config, tmp_path):
    base = adapt_config(out=tmp_path / "all", source=(), target="")
    methods, policies = ["source_only", "mcc"], ["linear_probe", "partial:1"]
    result = run_grid(GridConfig(base, tuple(methods), tuple(policies)))
    assert list(result["runs"]) == policies
    assert all(list(by) == methods for by in result["runs"].values())
    assert list(result["runs"]["partial:1"]["mcc"]) == ["plain -> striped", "striped -> plain"]
    alone = replace(
        base,
        shift=replace(base.shift, source=("striped",), target="plain"),
        method=replace(base.method, method=("mcc",), policy="partial:1"),
        run=replace(base.run, out=None),
    )
    once, here = adapt(alone).result, result["runs"]["partial:1"]["mcc"]["striped -> plain"]
    for part in ("target", "source_only", "selection"):
        assert once[part] == here[part]
    assert (tmp_path / "all" / "partial-1_mcc_striped_plain" / "model.safetensors").is_file()
    lines = grid_text(result).splitlines()
    assert len(lines) == 1 + 4
    assert [line.split()[:2] for line in lines[1:]] == [[p, m] for p in policies for m in methods]


def test_one_that_was_stopped_goes_on(adapt_config, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("studies.adaptation_grid.read_domains", lambda *_: tiny)
    base, done = adapt_config(out=tmp_path / "all", resume=True), []

    def once(one, **how):
        done.append(one.method.method[0])
        if len(done) == 2:
            raise KeyboardInterrupt
        return adapt(one, **how)

    monkeypatch.setattr("studies.adaptation_grid.adapt", once)
    study = GridConfig(base, ("coral", "mcc"))
    with pytest.raises(KeyboardInterrupt):
        run_grid(study)
    first = json.loads((tmp_path / "all" / "linear_probe_coral_plain_striped" / "result.json").read_text())
    result = run_grid(study)
    assert result["runs"]["linear_probe"]["coral"]["plain -> striped"] == first
    assert list(result["runs"]["linear_probe"]) == ["coral", "mcc"]
    assert run_grid(study) == json.loads((tmp_path / "all" / "result.json").read_text())
    assert done == ["coral", "mcc", "coral", "mcc"]


@pytest.mark.parametrize(
    ("source", "target", "pairs"),
    [
        ((), "striped", ["plain -> striped", "dim -> striped"]),
        (("plain", "dim"), "", ["plain -> dim", "plain -> striped", "dim -> plain", "dim -> striped"]),
        (("plain", "dim"), "striped", ["plain,dim -> striped"]),
    ],
)
def test_a_side_that_is_left_open_is_every_domain(adapt_config, three, monkeypatch, source, target, pairs):
    monkeypatch.setattr("studies.adaptation_grid.read_domains", lambda *_: three)
    result = run_grid(GridConfig(adapt_config(source=source, target=target), ("source_only",)))
    assert sorted(result["runs"]["linear_probe"]["source_only"]) == sorted(pairs)


def test_a_method_that_there_is_not_ends_it_at_once(adapt_config):
    with pytest.raises(TransferError, match="unknown method 'mccc'"):
        run_grid(GridConfig(adapt_config(), methods=("mccc",)), [(("plain",), "striped")])
