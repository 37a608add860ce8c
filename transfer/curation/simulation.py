"""Label-efficiency curves of strategies on a labelled set: `transfer pick --simulate`."""

from dataclasses import replace
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from transfer.config.curation import PickConfig
from transfer.config.serialise import to_dict
from transfer.curation.features import DataSetFeatures, load_data_set_features
from transfer.curation.pick import make_task
from transfer.curation.picking.registry import find_strategy
from transfer.curation.picking.simulate import RANDOM, LabelledSplit, simulate_rounds, summarise_rounds
from transfer.data.splits import split
from transfer.data.unlabelled import forget_placeholder_classes
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.runtime.files import write_json


def simulate(config: PickConfig) -> dict[str, Any]:
    """Pick in ``config.simulation.rounds`` rounds of ``config.n`` images, by each strategy and at random.

    Returns
    -------
    dict
        What :func:`transfer.curation.picking.simulate.summarise_rounds` returns, with ``config`` and ``classes``, their
        number; also in the JSON file ``config.out``, if there is one.

    Raises
    ------
    TransferError
        The images cannot be read, or have too few labels.
    """
    wanted = config.simulation
    strategies = [RANDOM, *(name for name in wanted.strategies or (config.strategy,) if name != RANDOM)]
    for name in strategies:
        find_strategy(name)
    data = load_data_set_features(
        config.images, config.backbone, TrunkCache(config.cache), device=config.device, seed=config.seed
    )
    table = forget_placeholder_classes(data.table)
    known = table.object >= 0
    if not known.any():
        raise TransferError("--simulate needs a set with labels, which it hides: this one has none")
    data = replace(data, table=table).take(known)
    splits = [_split(data, config, seed) for seed in wanted.seeds]
    with tqdm(total=len(strategies) * len(splits) * wanted.rounds, desc="rounds", disable=None, leave=False) as bar:
        rounds = {
            name: [
                simulate_rounds(each, name, [config.n] * wanted.rounds, seed, bar.update)
                for each, seed in zip(splits, wanted.seeds, strict=True)
            ]
            for name in strategies
        }
    result = {"config": to_dict(config), "classes": len(table.objects)} | summarise_rounds(rounds)
    if config.out:
        write_json(config.out, result)
    return result


def _split(data: DataSetFeatures, config: PickConfig, seed: int) -> LabelledSplit:
    """Return the pool and the test rows; rows of a given validation part are in neither."""
    parts = split(data.table, data.inspection, test=config.simulation.test, val=0.0, seed=seed)
    if not len(parts.test):
        raise TransferError("--simulate: no test image is left; raise --test, or give classes more images")
    task, _ = make_task(data.take(parts.train))
    most = int(replace(task, labels=np.full_like(task.labels, -1)).find_candidates().sum())
    if config.n * config.simulation.rounds > most:
        raise TransferError(
            f"--n {config.n} in --rounds {config.simulation.rounds}: only {most:,} images can be chosen"
        )
    return LabelledSplit(task, data.features[parts.test], data.table.object[parts.test])
