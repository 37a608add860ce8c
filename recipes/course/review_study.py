"""Review questions: how activation, initialisation, input scaling and batch norm change a network's layers."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from course.baseline import average_seeds
from course.chart import draw_layers
from course.config import NetworkConfig, QuestionsConfig, ScratchConfig
from course.pixels import load_pixel_sets
from course.trainer import train_from_scratch
from transfer.config.serialise import to_dict
from transfer.feature_cache import TrunkCache
from transfer.report.console.tables import text_table
from transfer.runs.folder import RunFolder
from transfer.runs.seeds import score_text
from transfer.runtime.device import get_versions
from transfer.training.setup import read_images

# Five hidden layers, so that the effect of each layer on the scale of its input accumulates.
BASES = {
    "mlp": NetworkConfig("mlp", (64, 64, 64, 64, 64), initialisation="he"),
    "cnn": NetworkConfig("cnn", (8, 16, 16, 32, 32), initialisation="he"),
}
_NORM = {"batch_norm": True}
# Question -> setting -> its changes to the base (ReLU, He, standardised inputs, no batch normalisation).
QUESTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "activation": {name: {"activation": name} for name in ("relu", "leaky_relu", "elu", "maxout", "tanh", "sigmoid")},
    "initialisation": {name: {"initialisation": name} for name in ("he", "xavier", "too_small", "too_large")},
    "inputs": {name: {"inputs": name} for name in ("standardised", "unit", "raw")},
    "batch norm": {
        "on": _NORM,
        "on, sigmoid": _NORM | {"activation": "sigmoid"},
        "on, too_small": _NORM | {"initialisation": "too_small"},
        "on, too_large": _NORM | {"initialisation": "too_large"},
        "on, raw": _NORM | {"inputs": "raw"},
    },
}


def run_review_study(config: QuestionsConfig) -> dict[str, Any]:
    """Train each network under each setting; if `config` names a folder, write the result and plot the layers.

    Returns
    -------
    dict
        ``runs``: by network, question and setting the results of every seed; ``config``, ``versions``, ``seconds``.

    Raises
    ------
    TransferError
        Bad input; a folder that cannot be used.
    """
    started = time.perf_counter()
    folder = RunFolder(config.out, to_dict(config), overwrite=config.overwrite) if config.out else None
    cache = TrunkCache()
    images = read_images(config.data, cache.disk_cache)
    sets = load_pixel_sets(config.data, images, config.side, config.seeds, cache.disk_cache)
    finished: dict[tuple[ScratchConfig, int], dict[str, Any]] = {}

    def run(run_config: ScratchConfig, name: str, seed: int) -> dict[str, Any]:
        if (run_config, seed) not in finished:  # several questions include the base
            finished[run_config, seed] = train_from_scratch(run_config, sets[seed], name=name, seed=seed, examples=0)
        return finished[run_config, seed]

    runs = {
        network: {
            question: {
                setting: [run(make_config(config, network, change), f"{network} {setting}", s) for s in config.seeds]
                for setting, change in settings.items()
            }
            for question, settings in QUESTIONS.items()
        }
        for network in config.networks
    }
    result = {"command": "questions", "config": to_dict(config), "versions": get_versions(), "runs": runs}
    result["seconds"] = {"total": round(time.perf_counter() - started, 3)}
    if folder:
        folder.write_result(result)
        draw_layers(folder.path / "layers.png", runs)
    return result


def make_config(config: QuestionsConfig, network: str, change: Mapping[str, Any]) -> ScratchConfig:
    """Return the base config of `network` with the `change` of one setting."""
    network_change = {key: value for key, value in change.items() if key != "inputs"}
    return ScratchConfig(
        replace(BASES[network], **network_change),
        inputs=change.get("inputs", "standardised"),
        side=config.side,
        lr=config.lr,
        epochs=config.epochs,
        batch_size=config.batch_size,
        device=config.device,
    )


def review_text(result: dict[str, Any]) -> str:
    """Return a table for each network of :func:`run_review_study`, and the monitor's warnings for each setting."""
    return "\n\n".join(part for network, runs in result["runs"].items() for part in _network_parts(network, runs))


def _network_parts(network: str, runs: Mapping[str, Mapping[str, Sequence[dict[str, Any]]]]) -> list[str]:
    rows, warnings = [], []
    for question, settings in runs.items():
        for setting, seeds in settings.items():
            start, end = seeds[0]["layers"]["start"][:-1], seeds[0]["layers"]["end"][:-1]
            ends = [f"{start[0][key]:.1e} .. {start[-1][key]:.1e}" for key in ("activation", "gradient")]
            dead = max(layer["dead"] for layer in end)
            scores = [score_text(average_seeds(seeds), head).partition(" [")[0] for head in ("object", "domain")]
            rows.append([f"{question}: {setting}", *ends, f"{dead:.0%}", *scores])
            warnings += [f"{network}, {question} {setting}: {sentence}" for sentence in seeds[0]["monitor"]]
    head = [network, "activations, first .. last", "gradients, first .. last", "most dead", "object", "domain"]
    return [text_table(head, rows), *(["\n".join(warnings)] if warnings else [])]
