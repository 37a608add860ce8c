"""Transfer learning on pretrained CNN backbones.

Everything a script needs is here; torch is imported only once something that uses it is.

Examples
--------
>>> import transfer
>>> config = transfer.TrainConfig(data=transfer.DataConfig("digits"), policy=transfer.PolicyConfig("linear_probe"))
>>> config.backbone.backbone
'glyphnet'
"""

import importlib
from typing import TYPE_CHECKING, Any

from transfer.adapt.config import AdaptConfig, MethodConfig, ShiftConfig, StepsConfig
from transfer.commands import AdviseConfig, EvaluateConfig, ExportConfig, LrFindConfig, PredictConfig, SearchConfig
from transfer.config import (
    BackboneConfig,
    CompareConfig,
    DataConfig,
    HeadConfig,
    LearnConfig,
    PolicyConfig,
    RegulariseConfig,
    RunConfig,
    TrainConfig,
)
from transfer.errors import TransferError

if TYPE_CHECKING:
    from transfer.backbones import Backbone, load
    from transfer.data.sets import load_table
    from transfer.data.splits import split
    from transfer.data.table import ImageTable
    from transfer.estimator import BackboneFeatures, TransferClassifier
    from transfer.formats import export
    from transfer.freeze import FreezePlan, FreezePolicy
    from transfer.learn.advise import advise
    from transfer.learn.compare import compare
    from transfer.learn.lr_find import lr_find
    from transfer.learn.predict import evaluate, predict
    from transfer.learn.search import search
    from transfer.learn.train import train
    from transfer.report.page import write_report

__version__ = "0.1.0"

_LAZY = {
    "Backbone": "transfer.backbones",
    "BackboneFeatures": "transfer.estimator",
    "TransferClassifier": "transfer.estimator",
    "export": "transfer.formats",
    "load": "transfer.backbones",
    "load_table": "transfer.data.sets",
    "split": "transfer.data.splits",
    "ImageTable": "transfer.data.table",
    "FreezePlan": "transfer.freeze",
    "FreezePolicy": "transfer.freeze",
    "advise": "transfer.learn.advise",
    "compare": "transfer.learn.compare",
    "evaluate": "transfer.learn.predict",
    "lr_find": "transfer.learn.lr_find",
    "predict": "transfer.learn.predict",
    "search": "transfer.learn.search",
    "train": "transfer.learn.train",
    "write_report": "transfer.report.page",
}

__all__ = [
    "AdaptConfig",
    "AdviseConfig",
    "Backbone",
    "BackboneConfig",
    "BackboneFeatures",
    "CompareConfig",
    "DataConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FreezePlan",
    "FreezePolicy",
    "HeadConfig",
    "ImageTable",
    "LearnConfig",
    "LrFindConfig",
    "MethodConfig",
    "PolicyConfig",
    "PredictConfig",
    "RegulariseConfig",
    "RunConfig",
    "SearchConfig",
    "ShiftConfig",
    "StepsConfig",
    "TrainConfig",
    "TransferClassifier",
    "TransferError",
    "advise",
    "compare",
    "evaluate",
    "export",
    "load",
    "load_table",
    "lr_find",
    "predict",
    "search",
    "split",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'transfer' has no attribute {name!r}")
