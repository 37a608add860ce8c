"""`transfer update`: a saved run and new images -> a new run, compared with the old one on the same test images."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from transfer.config.checked import from_dict
from transfer.config.commands import UpdateConfig
from transfer.config.serialise import complete_old_config, to_dict
from transfer.config.train import DataConfig, TrainConfig
from transfer.data.unlabelled import REST
from transfer.errors import TransferError
from transfer.evaluation.finished_run import load_run
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.runs.checkpoint import Models
from transfer.runs.folder import IMAGES_FILE, UPDATE_FILE
from transfer.runs.image_list import DIGEST, ListedImage, write_image_list
from transfer.runtime.files import read_json, write_json
from transfer.training.results import TrainRun
from transfer.training.setup import Images, read_images
from transfer.training.train import train
from transfer.training.warm_start.start import WarmStart
from transfer.updating.before_after import compare_heads, describe_comparison, predict_before
from transfer.updating.sources import further_heads, read_corrections, read_new_images, read_old_images
from transfer.updating.union import Union

# Of a trained policy that starts from the old weights, as a share of the run's.
EPOCHS = 1 / 3
RATE = 0.1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OldRun:
    """The run that is updated: its config, with one seed and the policy that was trained, its models and metrics."""

    config: TrainConfig
    models: Models
    trained: bool  # whether some layers were trained in epochs, rather than solved

    @property
    def specs(self) -> list[HeadSpec]:
        """Its heads."""
        return [spec for model in self.models.values() for spec in model.heads.specs.values()]


def update(config: UpdateConfig) -> dict[str, Any]:
    """Train a saved run again with further images or corrected labels; compare it with the old run.

    Old images keep their part of the split; the new run's ``images.csv`` lists all with theirs, and ``transfer train``
    on it gives the same bits where the policy is solved. A trained policy starts from the old weights.

    Returns
    -------
    dict
        ``run`` (the new result.json), ``changes`` (what became of the new images), ``old_test`` and ``new_test`` (by
        head: accuracy, or mean average precision of labels, before and after, and a paired test), ``per_class``,
        ``notes``. All but ``run`` is written to update.json.

    Raises
    ------
    TransferError
        The run cannot be updated, its images are missing or have changed, or there are no new ones.
    """
    started = time.perf_counter()
    old = read_old_run(config)
    cache = TrunkCache(old.config.cache)
    union = _unite(config, old, cache)
    for note in union.notes:
        log.info("%s", note)
    with TemporaryDirectory() as folder:
        write_image_list(Path(folder), union.images)
        data = make_data_config(old, union, str(Path(folder, IMAGES_FILE)))
        images = read_images(data, cache.disk_cache)
    new = replace(old.config, data=replace(data, data=str(config.out / IMAGES_FILE)) if config.out else data)
    new = replace(new, run=replace(new.run, out=config.out, overwrite=config.overwrite))
    before = union.images[: union.old]
    warm = WarmStart(old.models, _digests(before, "val"), config.max_loss)
    run = train(new, images=images, cache=cache, warm_start=warm)
    result = {
        "command": "update",
        "config": to_dict(config),
        "changes": union.describe(),
        **_compare(old, run, images, _digests(before, "test"), cache),
        "notes": union.notes,
        "seconds": {"total": round(time.perf_counter() - started, 3)},
    }
    if config.out:
        write_json(config.out / UPDATE_FILE, result)
    return result | {"run": run.result}


def read_old_run(config: UpdateConfig) -> OldRun:
    """Return the run that `config` names.

    Raises
    ------
    TransferError
        It is no finished run of `transfer train` with one seed.
    """
    run = config.run
    if not (run / "result.json").is_file():
        raise TransferError(f"{run} has no result.json: give the folder of a finished run of transfer train")
    if config.out and config.out.resolve() == run.resolve():
        raise TransferError(f"--out {config.out} is the run itself, which stays as it is: name another folder")
    result = read_json(run / "result.json")
    if (command := result.get("command")) != "train":
        raise TransferError(f"{run} is a run of transfer {command}: update takes a run of transfer train")
    trained = from_dict(TrainConfig, complete_old_config(result["config"]))
    if config.engine:
        trained = replace(trained, backbone=replace(trained.backbone, engine=config.engine))
    if len(trained.run.seeds) > 1:
        inner_run = run / f"seed{trained.run.seeds[0]}"
        raise TransferError(f"{run} has several seeds, each with its own split: update one, such as {inner_run}")
    # An old float32 model has no calibration for int8: it is compared on its own engine.
    engine = None if config.engine == "int8" else config.engine
    loaded = load_run(run, device=config.device or trained.learn.device, engine=engine)
    choices = [choice for fitted in result["epochs"].values() for choice in fitted]  # numbers of epochs are integers
    in_epochs = bool(result["policy"]["optimizer_bytes"]) or any(isinstance(choice, int) for choice in choices)
    learn = replace(trained.learn, device=config.device or trained.learn.device)
    if in_epochs:
        epochs = config.epochs or max(1, round(EPOCHS * learn.epochs))
        learn = replace(learn, epochs=epochs, lr=RATE * learn.lr)
    policy = replace(trained.policy, policy=result["policy"]["name"])
    (seed,) = trained.run.seeds or (trained.run.seed,)
    new = replace(trained, learn=learn, policy=policy, run=replace(trained.run, resume=False, seed=seed, seeds=()))
    return OldRun(new, loaded.models, in_epochs)


def make_data_config(old: OldRun, union: Union, data: str) -> DataConfig:
    """Return the DataConfig of the new run, whose images and split are listed in the file `data`."""
    given = old.config.data
    parts = {image["split"] for image in union.images}
    return replace(
        given,
        data=data,
        data_root=None,
        labels=None,
        corrections=None,
        targets=tuple(f"{spec.name}:{spec.kind}" for spec in further_heads(old.specs)),
        test=given.test if "test" in parts else 0.0,
        val=given.val if "val" in parts else 0.0,
        shots=None,  # labels that were drawn are listed, and new ones all count
        unlabelled=REST if given.unlabelled else None,
        keep_near_duplicates_together=False,  # new images were split so that they are
    )


def _unite(config: UpdateConfig, old: OldRun, cache: TrunkCache) -> Union:
    """Return old and new images with their split; raise a TransferError if there is nothing new."""
    source = read_old_images(config, cache.disk_cache)
    added = corrections = None
    count = len(source.images)
    if config.add:
        added = read_new_images(config, config.add, source, old.specs, cache.disk_cache)
    if config.corrections:
        corrections, excluded = read_corrections(config, config.corrections, source, old.specs, cache.disk_cache)
        source, added = source.without(excluded), added.without(excluded) if added else None
    run = old.config.run
    seed = run.seed if old.config.data.split_seed is None else old.config.data.split_seed
    columns = {spec.name: spec.kind for spec in further_heads(old.specs) if spec.classes}
    union = Union.of(source, added, corrections, old.config.data, seed, columns)
    union.notes += union.describe_changes()
    if len(source.images) == count and len(union.images) == union.old and not (union.corrected or union.labelled):
        raise TransferError(f"nothing to update: {config.run} has each of these images under the same label")
    return union


def _digests(images: list[ListedImage], part: str) -> frozenset[str]:
    return frozenset(image[DIGEST] for image in images if image["split"] == part)


def _compare(old: OldRun, run: TrainRun, images: Images, old_test: frozenset[str], cache: TrunkCache) -> dict[str, Any]:
    """Return the comparison on the new run's test images; empty without such images."""
    table, predictions = run.tests[0]
    if not len(table):
        return describe_comparison({})
    by_path = dict(zip(images.table.paths.tolist(), images.inspection.sha256.tolist(), strict=True))
    digests = np.array([by_path[path] for path in table.paths.tolist()])
    before = predict_before(old.models, table, digests, cache, old.config.view)
    heads = compare_heads(before, (table, predictions), np.isin(digests, list(old_test)))
    return describe_comparison(heads)
