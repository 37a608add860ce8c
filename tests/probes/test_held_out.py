"""Each row is predicted by a probe of the other folds' rows: compared with probes that are solved fold by fold."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.probes import lbfgs
from transfer.probes.held_out import cross_fit, find_solution
from transfer.probes.linear import solve_linear_probe

SPECS = (
    HeadSpec("object", classes=("a", "b", "c")),
    HeadSpec("domain", classes=("x", "y")),
    HeadSpec("sharp", "binary", ("no", "yes")),
    HeadSpec("size", "regression"),
)


@pytest.fixture(autouse=True)
def exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lbfgs, "FINE_TOLERANCE", 1e-5)


def rows_of(n: int = 120) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 8, generator=g)
    mixed = x @ torch.randn(8, 7, generator=g) + torch.randn(n, 7, generator=g)
    targets = {
        "object": mixed[:, :3].argmax(1),
        "domain": mixed[:, 3:5].argmax(1),
        "sharp": (mixed[:, 5] > 0).long(),
        "size": mixed[:, 6],
    }
    targets["object"][:7] = -1
    return x, targets


@pytest.mark.parametrize("compose", ["dual", "joint"])
def test_each_fold_is_predicted_by_the_others(compose: Any) -> None:
    x, targets = rows_of()
    heads = Heads(SPECS, 8, compose=compose)
    l2 = dict.fromkeys(["joint", "object", "domain", "sharp", "size"], 0.05)
    folds = np.random.default_rng(0).integers(0, 5, len(x))
    temperatures = {"object": 0.5, "joint": 0.5, "domain": 2.0}
    outputs = cross_fit(copy.deepcopy(heads), (x, targets), folds, temperatures, smoothing=0.1, fixed_l2=l2)
    found = {name: values.numpy() for name, values in heads.predictions(outputs).items()}
    assert found.keys() == {"object", "domain", "sharp", "size"}
    for fold in range(5):
        out = np.flatnonzero(folds == fold)
        own = copy.deepcopy(heads)
        # All rows scale the features, which needs no label; the fold's own labels are taken away.
        hidden = {
            name: values.clone().index_fill_(
                0, torch.from_numpy(out), float("nan") if values.is_floating_point() else -1
            )
            for name, values in targets.items()
        }
        solve_linear_probe(own, (x, hidden), smoothing=0.1, fixed_l2=l2)
        with torch.no_grad():
            outputs = own.layer_outputs(x[out])
            for name, temperature in temperatures.items():
                if name in outputs:
                    last = [m for m in own.layer(name).modules() if isinstance(m, torch.nn.Linear)][-1]
                    last.weight.div_(temperature)
                    last.bias.div_(temperature)
            wanted = own.predictions(own(x[out]))
        for name, values in wanted.items():
            got = found[name][out]
            known = ~np.isnan(got) if got.ndim == 1 else ~np.isnan(got).any(1)
            np.testing.assert_allclose(got[known], values.numpy()[known], atol=4e-3)
            if name == "object" and compose == "dual":
                assert (~known == (targets["object"].numpy()[out] < 0)).all()


def test_weights_of_rows_count() -> None:
    x, targets = rows_of()
    folds, l2 = np.random.default_rng(0).integers(0, 5, len(x)), {"object": 0.05}
    plain, weighted = (
        cross_fit(Heads(SPECS[:1], 8), (x, {"object": targets["object"]}), folds, {}, fixed_l2=l2, row_weights=weights)[
            "object"
        ]
        for weights in (None, {"object": torch.linspace(0.1, 5, len(x))})
    )
    known = targets["object"] >= 0
    assert (plain - weighted)[known].abs().max() > 0.01


def test_which_fits_are_one_linear_probe(taught) -> None:
    model, plan = taught()
    model.freeze(plan.phases[-1])
    assert find_solution(model, [{"object": 0.1}]) == {"object": 0.1}
    assert find_solution(model, [3]) is None
    assert find_solution(model, [{"object": 0.1}, 5]) is None
    after_lp_ft, plan = taught("lp_ft:1")
    after_lp_ft.freeze(plan.phases[-1])
    assert find_solution(after_lp_ft, [{"object": 0.1}]) is None
    every_stage, plan = taught("stage_probes")
    every_stage.freeze(plan.phases[-1])
    assert find_solution(every_stage, [{"object": {"all stages": 0.1}}]) is None
