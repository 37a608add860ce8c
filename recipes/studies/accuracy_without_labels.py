"""How far expected accuracies are from measured ones: models of one domain, evaluated on the others.

Each model is also evaluated on its own test images, all of them and small samples, on which every alarm is false. The
model may be an ensemble of several backbones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import torch

from transfer import TrainConfig, train
from transfer.adaptation.label_shift import estimate_accuracy
from transfer.evaluation.label_free.expected_accuracy import (
    MIN_IMAGES,
    AccuracyReference,
    ExpectedAccuracy,
    average_expected,
)
from transfer.evaluation.predictions import iterate_outputs
from transfer.feature_cache import TrunkCache
from transfer.model import TransferModel
from transfer.training.setup import Images, read_images, split_images

HEAD = "object"
SAMPLES, SIZES = 10, (20, 50)  # samples of each size drawn from a model's own test images
METHODS = ("source", "confidence", "ATC", "agreement", "transport", "expected")


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model says of images: probabilities (N, classes) and features (N, F). `true` (N, classes) is bool."""

    probabilities: np.ndarray
    features: np.ndarray
    true: np.ndarray

    def take(self, rows: np.ndarray) -> "Outputs":
        """Return those of `rows`."""
        return Outputs(self.probabilities[rows], self.features[rows], self.true[rows])


@dataclass(frozen=True)
class EvaluatedPair:
    """What a model of `source` expects on images of `target`, and what is `measured`; `others` are other estimates."""

    source: str
    target: str
    measured: float
    expected: ExpectedAccuracy
    others: dict[str, float]

    @property
    def own(self) -> bool:
        """Whether these are the model's own test images."""
        return self.target.startswith(self.source + " ")

    @property
    def holds(self) -> bool:
        """Whether the measured accuracy lies in the interval."""
        return self.expected.low <= self.measured <= self.expected.high

    def error(self, method: str = "expected") -> float:
        """Return by how many points an estimate is wrong."""
        return 100 * abs(self.others[method] - self.measured)


def evaluate_pairs(config: TrainConfig, cache: TrunkCache, seeds: Sequence[int]) -> Iterator[EvaluatedPair]:
    """Train on each domain of a data set with each seed; yield what is expected on its test images and elsewhere.

    Of several backbones, separated by commas, the ensemble is evaluated.
    """
    images, data = read_images(config.data, cache.disk_cache), config.data
    domains = {name: take_rows(images, images.table.domain == k) for k, name in enumerate(images.table.domains)}
    for seed in seeds:
        for source, known in domains.items():
            print(f"\nseed {seed}, trained on {source}")
            models, references = train_members(config, known, cache, seed)
            tests = take_rows(known, np.isin(np.arange(len(known.table)), split_images(known, data, seed).test))
            own = [compute_outputs(model, cache, tests) for model in models]
            random = np.random.default_rng(seed)
            for size in (len(tests.table), *(size for size in SIZES for _ in range(SAMPLES))):
                rows = np.sort(random.permutation(len(tests.table))[:size])
                if MIN_IMAGES <= len(rows) == size:
                    name = f"{source} test" + f", {size} images" * (size < len(tests.table))
                    yield evaluate_pair(references, source, name, [each.take(rows) for each in own])
            for target, others in domains.items():
                if target != source:
                    outputs = [compute_outputs(model, cache, others) for model in models]
                    yield evaluate_pair(references, source, target, outputs)


def train_members(
    config: TrainConfig, images: Images, cache: TrunkCache, seed: int
) -> tuple[list[TransferModel], list[AccuracyReference]]:
    """Return a model for each backbone, trained on `images`, and what its accuracy is expected from."""
    models, references = [], []
    for backbone in config.backbone.backbone.split(","):
        run = replace(config.run, seed=seed, seeds=(), out=None)
        one = replace(config, backbone=replace(config.backbone, backbone=backbone), run=run)
        trained = train(one, images=images, cache=cache)
        assert trained.uncertainty
        models.append(trained.models[""])
        references.append(trained.uncertainty.accuracy[HEAD])
    return models, references


def take_rows(images: Images, rows: np.ndarray) -> Images:
    """Return the images of `rows`, bool (N,)."""
    return replace(images, table=images.table.take(rows), inspection=images.inspection.take(rows), depths=None)


def compute_outputs(model: TransferModel, cache: TrunkCache, images: Images) -> Outputs:
    """Return what `model` says of `images`."""
    feed = cache.feed(model.eval(), images.table.paths, images.inspection.sha256, batch_size=256)
    with torch.inference_mode():
        parts = [
            (x.float().cpu().numpy(), model.heads.predictions(outputs)[HEAD].cpu().numpy())
            for x, outputs in iterate_outputs(model, feed, np.arange(len(images.table)))
        ]
    features, probabilities = (np.concatenate(each) for each in zip(*parts, strict=True))
    objects = np.array(images.table.objects)[images.table.object]
    return Outputs(probabilities, features, np.array(model.heads.specs[HEAD].classes)[None] == objects[:, None])


def evaluate_pair(
    references: Sequence[AccuracyReference], source: str, target: str, outputs: Sequence[Outputs]
) -> EvaluatedPair:
    """Return what is expected of these images, beside other estimates: of a model, or of the ensemble of several."""
    together = np.mean([each.probabilities for each in outputs], axis=0)
    ensemble = together if len(outputs) > 1 else None
    parts = list(zip(references, outputs, strict=True))
    expectations = [reference.expect(each.probabilities, each.features, ensemble) for reference, each in parts]
    members = [each for each in expectations if each]
    assert len(members) == len(parts)
    expected = average_expected(members) if len(members) > 1 else members[0]
    others = {
        "source": expected.held_out,
        "confidence": float(together.max(1).mean()),
        "ATC": fmean(_estimate_atc(reference, each.probabilities) for reference, each in parts),
        "agreement": expected.agreement,
        "transport": expected.transport,
        "expected": expected.accuracy,
    }
    correct = outputs[0].true[np.arange(len(together)), together.argmax(1)]
    return EvaluatedPair(source, target, float(correct.mean()), expected, others)


def _estimate_atc(reference: AccuracyReference, probabilities: np.ndarray) -> float:
    known, new = (np.log(np.maximum(p.astype(float), 1e-8)) for p in (reference.probabilities, probabilities))
    return estimate_accuracy(known, reference.labels, new)


def summarise(name: str, pairs: Sequence[EvaluatedPair]) -> list[str]:
    """Return a line of the table: mean of measured and expected accuracy, errors, intervals that hold, alarms."""
    return [
        name,
        f"{fmean(each.measured for each in pairs):.3f}",
        f"{fmean(each.expected.accuracy for each in pairs):.3f}",
        f"{fmean(each.error() for each in pairs):.1f}",
        f"{fmean(each.expected.high - each.expected.low for each in pairs) / 2:.3f}",
        f"{fmean(each.holds for each in pairs):.0%}",
        f"{fmean(each.expected.alarm for each in pairs):.0%}",
        str(len(pairs)),
    ]
