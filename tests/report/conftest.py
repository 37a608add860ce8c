"""Run folders as training leaves them, made in no time, with names that would break a page."""

import base64
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from transfer.config.serialise import to_dict
from transfer.config.train import DataConfig, LearnConfig, TrainConfig
from transfer.heads import metrics

HOSTILE = (
    "<script>alert('object')</script>",
    "quotes \" and ' and &amp;",
    "größer 猫 🐈",
    "two\nlines",
    "long" * 60,
    "</style><img src=x onerror=alert(1)>",
    "$\\frac{1}{0$ {{ 7 * 7 }}",
    "plain",
)
DOMAINS = ("<b>dslr</b>", "webcam")


@pytest.fixture(scope="session")
def hostile() -> tuple[str, ...]:
    """Names that would break a page."""
    return HOSTILE


def reported(true: np.ndarray, said: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    return metrics.classification_metrics(true, said, classes)


def jpeg() -> str:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 30, 60)).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """Make a run folder; `wrong` is the share of wrong objects."""

    def make(
        name: str = "run",
        *,
        n: int = 40,
        wrong: float = 0.25,
        classes: tuple[str, ...] = HOSTILE,
        config: Any = None,
        seed: int = 0,
        bare: bool = False,
        **more: Any,
    ) -> Path:
        rng = np.random.default_rng(seed)
        true, domain = np.arange(n) % len(classes), np.arange(n) // 3 % 2
        said = np.where(rng.random(n) < wrong, (true + 1) % len(classes), true)
        sure = rng.uniform(0.2, 1, n).round(6)
        folder = tmp_path / name
        folder.mkdir(parents=True)
        phase = {"name": "partial", "share": 1.0, "heads_rate": 1.0, "percents": []}
        stage = {"name": "stem <i>", "train": "none", "rate": 0.0, "statistics": "frozen", "parameters": 900}
        tail = {"name": "tail", "train": "all", "rate": 0.1, "statistics": "learning", "parameters": 100}
        phase["stages"] = [stage | {"trained": 0}, tail | {"trained": 100}]
        per_domain = {
            d: {"object": {"accuracy": float((said == true)[domain == i].mean()), "n": int((domain == i).sum())}}
            for i, d in enumerate(DOMAINS)
        }
        result = {
            "command": "train",
            "config": to_dict(config or TrainConfig()),
            "versions": {"python": "3.11", "transfer": "0.1.0"},
            "seconds": {"total": 12.5, "trunk": 2.0, "train": 10.5},
            "backbone": {"name": "net", "weights": "file <weights>", "width": 8},
            "policy": {
                "name": "partial:1",
                "trained_parameters": 100,
                "frozen_parameters": 900,
                "frozen_unchanged": True,
                "moved": [],
                **({} if bare else {"optimizer_bytes": 800, "heads_parameters": 10, "phases": [phase]}),
            },
            "images": {"train": 10, "val": 5, "test": n, "imbalance": 1.5, "rarest": {"a": 1}},
            "test": {"object": reported(true, said, classes), "domain": reported(domain, domain, DOMAINS)},
            "per_domain": per_domain,
            "monitor": ["overfitting: <object>"],
            "stopped": "",
            "notes": ["a <note>"],
        } | more
        (folder / "result.json").write_text(json.dumps(result))
        (folder / "config.json").write_text(json.dumps(result["config"]))
        with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            heads = [f"{h}{s}" for h in ("object", "domain") for s in ("", "_predicted", "_probability")]
            writer.writerow(["path", *heads])
            for i in range(n):
                mine = (classes[true[i]], classes[said[i]], sure[i], *[DOMAINS[domain[i]]] * 2, 0.9)
                writer.writerow([f"/images/<{i}>.png", *mine])
        lines = [
            {"phase": p, "epoch": e, "loss": 3 / e, "train": {"object": 0.5}, "val": {"object": 0.4}, "val_loss": 1.0}
            for e, p in ((1, "probe"), (2, "probe"), (3, "partial"))
        ]
        lines += [
            {"phase": "probe", "epoch": e, "head": "object", "strength": s, "loss": 1.0, "val": {"object": 0.5}}
            | {"val_loss": s, "seconds": 0.1}
            for e, s in ((1, 0.1), (2, 0.01))
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if not bare:
            top = {"object": [[classes[0], 0.7]], "domain": [[DOMAINS[0], 0.9]]}
            places = rng.normal(size=(n, 2)).tolist()
            state = {"places": places, "objects": true.tolist(), "domains": domain.tolist()}
            exhibits = {
                "galleries": {"object mistakes": [1, 2], "object hits": [0], "sample": [0, 3], "explained": [1]},
                "pictures": {str(i): {"jpeg": jpeg(), "top": top} for i in range(4)},
                "explained": {"1": {"answer": [[0.0, 1.0], [0.5, 0.2]], "truth": [[0.0, 0.0], [0.0, 0.0]]}},
                "map": {
                    "states": [{"title": t, **state} for t in ("before", "after <training>")],
                    "names": {"objects": list(classes), "domains": list(DOMAINS)},
                },
            }
            (folder / "exhibits.json").write_text(json.dumps(exhibits))
        return folder

    return make


@pytest.fixture(scope="session")
def search_result() -> Callable[..., dict[str, Any]]:
    """A function that builds the result of a search with random trials."""

    def result(count: int = 30, **settings: Any) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        trials = []
        for i in range(count):
            drawn = {"lr": float(10 ** rng.uniform(-4, 0)), "weight_decay": float(10 ** rng.uniform(-5, 0))} | settings
            accuracy = float(rng.random())
            trials.append(
                {
                    "trial": i,
                    "stage": "coarse" if i < count * 0.6 else "fine",
                    "settings": drawn,
                    "val_acc": accuracy,
                    "val": {"object": accuracy, "domain": accuracy},
                    "epochs": 9,
                    "stopped": "halving" if i % 3 else "",
                    "seconds": 0.5,
                }
            )
        best = max(trials, key=lambda t: t["val_acc"])
        selection = {"rule": "highest validation accuracy", "trials": count}
        extras = {"importance": {}, "notes": ["look out"], "final": None, "solved_probe": None}
        config = TrainConfig(data=DataConfig("flowers"), learn=LearnConfig(probe="trained", lr=best["settings"]["lr"]))
        extras["recommended"] = to_dict(config)
        return {"trials": trials, "best": best, "selection": selection, **extras}

    return result
