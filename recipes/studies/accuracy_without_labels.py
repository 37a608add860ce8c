"""How far expected accuracies are from measured ones: models of one domain, asked about the others.

Each model also judges its own test images, all of them and small samples, on which every alarm is false.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import torch

from transfer import TrainConfig, train
from transfer.adaptation.label_shift import estimate_accuracy
from transfer.evaluation.label_free.expected_accuracy import MIN_IMAGES, AccuracyReference, ExpectedAccuracy
from transfer.evaluation.predictions import iterate_outputs
from transfer.feature_cache import TrunkCache
from transfer.model import TransferModel
from transfer.training.setup import Images, read_images, split_images

HEAD = "object"
SAMPLES, SIZES = 10, (20, 50)  # samples of each size drawn from a model's own test images
METHODS = ("source", "confidence", "ATC", "agreement", "transport", "expected")


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
    """Train on each domain of a data set with each seed; yield what is expected on its test images and elsewhere."""
    images = read_images(config.data, cache.disk_cache)
    domains = {name: take_rows(images, images.table.domain == k) for k, name in enumerate(images.table.domains)}
    for seed in seeds:
        run_config = replace(config, run=replace(config.run, seed=seed, seeds=(), out=None))
        for source, known in domains.items():
            print(f"\nseed {seed}, trained on {source}")
            run = train(run_config, images=known, cache=cache)
            model, uncertainty = run.models[""], run.uncertainty
            assert uncertainty
            reference = uncertainty.accuracy[HEAD]
            tests = take_rows(known, np.isin(np.arange(len(known.table)), split_images(known, config.data, seed).test))
            own = compute_outputs(model, cache, tests)
            random = np.random.default_rng(seed)
            for size in (len(tests.table), *(size for size in SIZES for _ in range(SAMPLES))):
                rows = np.sort(random.permutation(len(tests.table))[:size])
                if MIN_IMAGES <= len(rows) == size:
                    name = f"{source} test" + f", {size} images" * (size < len(tests.table))
                    yield judge(reference, source, name, *(part[rows] for part in own))
            for target, others in domains.items():
                if target != source:
                    yield judge(reference, source, target, *compute_outputs(model, cache, others))


def take_rows(images: Images, rows: np.ndarray) -> Images:
    """Return the images of `rows`, bool (N,)."""
    return replace(images, table=images.table.take(rows), inspection=images.inspection.take(rows), depths=None)


def compute_outputs(
    model: TransferModel, cache: TrunkCache, images: Images
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities (N, classes), features (N, F) and whether the likeliest class is the true one, bool (N,)."""
    feed = cache.feed(model.eval(), images.table.paths, images.inspection.sha256, batch_size=256)
    with torch.inference_mode():
        parts = [
            (x.float().cpu().numpy(), model.heads.predictions(outputs)[HEAD].cpu().numpy())
            for x, outputs in iterate_outputs(model, feed, np.arange(len(images.table)))
        ]
    features, probabilities = (np.concatenate(each) for each in zip(*parts, strict=True))
    called = np.array(model.heads.specs[HEAD].classes)[probabilities.argmax(1)]
    return probabilities, features, called == np.array(images.table.objects)[images.table.object]


def judge(
    reference: AccuracyReference,
    source: str,
    target: str,
    probabilities: np.ndarray,
    features: np.ndarray,
    correct: np.ndarray,
) -> EvaluatedPair:
    """Return what is expected of these images, beside other estimates."""
    expected = reference.expect(probabilities, features)
    assert expected
    known, new = (np.log(np.maximum(p.astype(float), 1e-8)) for p in (reference.probabilities, probabilities))
    others = {
        "source": reference.accuracy,
        "confidence": float(probabilities.max(1).mean()),
        "ATC": estimate_accuracy(known, reference.labels, new),
        "agreement": expected.agreement,
        "transport": expected.transport,
        "expected": expected.accuracy,
    }
    return EvaluatedPair(source, target, float(correct.mean()), expected, others)


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
