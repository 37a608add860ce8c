from dataclasses import replace

import pytest

from transfer.adapt.config import CrossConfig
from transfer.adapt.cross import cross
from transfer.adapt.run import adapt
from transfer.errors import TransferError
from transfer.report.tables import crossed


def test_every_method_policy_and_pair_is_run_as_if_alone(config, tmp_path):
    base = config(out=tmp_path / "all", source=(), target="")
    methods, policies = ["source_only", "mcc"], ["linear_probe", "partial:1"]
    result = cross(CrossConfig(base, tuple(methods), tuple(policies)))
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
    lines = crossed(result).splitlines()
    assert len(lines) == 1 + 4
    assert [line.split()[:2] for line in lines[1:]] == [[p, m] for p in policies for m in methods]


@pytest.mark.parametrize(
    ("source", "target", "pairs"),
    [
        ((), "striped", ["plain -> striped", "dim -> striped"]),
        (("plain", "dim"), "", ["plain -> dim", "plain -> striped", "dim -> plain", "dim -> striped"]),
        (("plain", "dim"), "striped", ["plain,dim -> striped"]),
    ],
)
def test_a_side_that_is_left_open_is_every_domain(config, three, monkeypatch, source, target, pairs):
    monkeypatch.setattr("transfer.adapt.cross.read", lambda *_: three)
    result = cross(CrossConfig(config(source=source, target=target), ("source_only",)))
    assert sorted(result["runs"]["linear_probe"]["source_only"]) == sorted(pairs)


def test_a_method_that_there_is_not_ends_it_at_once(config):
    with pytest.raises(TransferError, match="unknown method 'mccc'"):
        cross(CrossConfig(config(), methods=("mccc",)), [(("plain",), "striped")])
