"""Steps to test an objective on, hostile ones too, and a toy problem whose answer is known; a tiny pair of domains."""

from collections.abc import Callable
from typing import Any

import pytest

from transfer.config.adapt import AdaptConfig

WIDTH, CLASSES = 5, 4
SHIFT = (1.5, 2.5)


@pytest.fixture(scope="session")
def draw() -> Callable:
    """Return a function that draws a batch of 7 source and 6 target rows, one of these labelled, in random order."""
    import torch

    from transfer.adaptation.losses.base import Batch

    def drawn(seed: int = 0, *, progress: float = 0.2, source: int = 7, target: int = 6) -> Batch:
        g = torch.Generator().manual_seed(seed)
        rows = source + target
        where = torch.randperm(rows, generator=g) < target
        labels = torch.randint(CLASSES, (rows,), generator=g)
        labels[where.nonzero().flatten()[1:]] = -1
        features, logits, strong = (torch.randn(rows, width, generator=g) for width in (WIDTH, CLASSES, CLASSES))
        features = features + where[:, None] * 0.5
        return Batch(
            features.requires_grad_(), (2 * logits).requires_grad_(), labels, where, progress, strong.requires_grad_()
        )

    return drawn


HOSTILE = ("saturated", "collapsed", "tied", "same", "zero", "alone", "large", "unlabelled", "labelled")


@pytest.fixture(scope="session", params=HOSTILE)
def survives(request: pytest.FixtureRequest, draw: Callable) -> Callable:
    """Return a check that loss and gradients of an objective are finite on a batch that could break them."""
    import torch
    from torch.nn import functional as F

    from transfer.adaptation.losses.base import AdaptationLoss, Batch

    batch = draw(3, source=1, target=1) if request.param == "alone" else draw(3)
    features, logits, strong = (x.detach() for x in (batch.features, batch.logits, batch.strong))
    labels = batch.labels
    match request.param:
        case "saturated":  # and the strong view as sure of another class
            logits = 1e3 * F.one_hot(logits.argmax(1), CLASSES).float()
            strong = logits.roll(1, 1)
        case "collapsed":
            logits = torch.zeros_like(logits)
            logits[:, 2] = 1e3
        case "tied":
            logits, strong = torch.zeros_like(logits), torch.zeros_like(strong)
        case "same":
            features, logits = features[:1].expand_as(features), logits[:1].expand_as(logits)
        case "zero":
            features = torch.zeros_like(features)
        case "large":
            features = 1e3 * features
        case "unlabelled":
            labels = torch.full_like(labels, -1)
        case "labelled":
            labels = labels.clamp_min(0)
    leaves = [x.clone().requires_grad_() for x in (features, logits, strong)]

    def check(objective: AdaptationLoss) -> None:
        objective.zero_grad()
        for leaf in leaves:
            leaf.grad = None
        loss = objective(Batch(leaves[0], leaves[1], labels, batch.target, 0.5, leaves[2]))
        assert loss.shape == ()
        assert loss.isfinite()
        loss.backward()
        for tensor in [*leaves, *objective.parameters()]:
            assert tensor.grad is None or bool(tensor.grad.isfinite().all())

    return check


@pytest.fixture(scope="session")
def learn_shifted() -> Callable:
    """Return a function that trains a linear network on two blobs, of which the target's are shifted.

    The known answer: look along the direction that the shift leaves alone, and every target row is right. Source
    labels alone say to look along the first axis, where half of the target lies beyond the boundary.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    from transfer.adaptation.losses.base import AdaptationLoss, Batch

    def blobs(shift: tuple[float, float]) -> tuple:
        g = torch.Generator().manual_seed(0)
        classes = torch.arange(128) % 2
        centres = torch.stack([2.0 * classes - 1, torch.zeros(128)], 1)
        source, target = (centres + torch.randn(128, 2, generator=g) * torch.tensor([0.25, 0.5]) for _ in range(2))
        return source, target + torch.tensor(shift), classes

    def learn(
        make: Callable[[int, int, nn.Module], AdaptationLoss] | None,
        shift: tuple[float, float] = SHIFT,
        *,
        steps: int = 250,
        rate: float = 0.1,
    ) -> tuple[float, float]:
        """Return the accuracy on the target, and |cosine| of the direction that decides with the shift."""
        source, target, classes = blobs(shift)
        torch.manual_seed(0)
        body, head = nn.Linear(2, 2), nn.Linear(2, 2)
        objective = make(2, 2, head) if make else None
        parameters = [*body.parameters(), *head.parameters(), *(objective.parameters() if objective else ())]
        optimizer = torch.optim.SGD(parameters, rate)
        x = torch.cat([source, target])
        labels, side = torch.cat([classes, torch.full_like(classes, -1)]), torch.arange(256) >= 128
        for step in range(steps):
            features = body(x)
            logits = head(features)
            loss = F.cross_entropy(logits[:128], classes)
            if objective:
                loss = loss + objective(Batch(features, logits, labels, side, step / steps))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            right = (head(body(target)).argmax(1) == classes).float().mean()
            direction = (head.weight[1] - head.weight[0]) @ body.weight
            along = torch.cosine_similarity(direction, torch.tensor(shift), 0).abs()
        return float(right), float(along)

    return learn


@pytest.fixture
def config(adapt_config: Callable[..., AdaptConfig]) -> Callable[..., AdaptConfig]:
    """Make a config of few steps, plain -> striped."""
    return adapt_config


@pytest.fixture
def staged(config: Callable[..., AdaptConfig], tiny: Any) -> Callable[..., Any]:
    """Build what a method runs on: the stage of a pair, the phase that says what learns, and the steps' config."""
    from transfer.adaptation.adapt import _split
    from transfer.adaptation.selection import validators
    from transfer.adaptation.task import prepare_task
    from transfer.feature_cache import TrunkCache

    def build(given: Any = None, **settings: Any) -> Any:
        made, known = config(**settings), given or tiny
        these, _ = _split(made.shift, known, made.run.seed)
        hold_out = any(rule.validation for rule in validators.find_validators(made.method.rule))
        stage, plan = prepare_task(made, these, known, TrunkCache(made.cache), made.run.seed, hold_out=hold_out)
        return stage, plan.phases[-1], made.steps

    return build
