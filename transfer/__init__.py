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

from transfer.config.adapt import AdaptConfig, MethodConfig, ShiftConfig, StepsConfig
from transfer.config.commands import (
    AdviseConfig,
    EvaluateConfig,
    ExportConfig,
    LrFindConfig,
    PredictConfig,
    SearchConfig,
)
from transfer.config.train import (
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
    from transfer.adaptation.adapt import adapt
    from transfer.backbones import Backbone, load
    from transfer.data.sets.load import load_table
    from transfer.data.splits import split
    from transfer.data.table import ImageTable
    from transfer.estimator import BackboneFeatures, TransferClassifier
    from transfer.evaluation.evaluate import evaluate, predict
    from transfer.formats import export
    from transfer.freeze import FreezePlan, FreezePolicy
    from transfer.heads import ClassHeadKind, HeadKind, register_head
    from transfer.report.page import write_report
    from transfer.training.compare import compare
    from transfer.training.train import train
    from transfer.tuning.advise import advise
    from transfer.tuning.lr_find import lr_find
    from transfer.tuning.search import search

__version__ = "0.1.0"

_LAZY = {
    "Backbone": "transfer.backbones",
    "BackboneFeatures": "transfer.estimator",
    "adapt": "transfer.adaptation.adapt",
    "TransferClassifier": "transfer.estimator",
    "export": "transfer.formats",
    "load": "transfer.backbones",
    "load_table": "transfer.data.sets.load",
    "ClassHeadKind": "transfer.heads",
    "HeadKind": "transfer.heads",
    "register_head": "transfer.heads",
    "register_method": "transfer.adaptation.registry",
    "split": "transfer.data.splits",
    "ImageTable": "transfer.data.table",
    "FreezePlan": "transfer.freeze",
    "FreezePolicy": "transfer.freeze",
    "advise": "transfer.tuning.advise",
    "compare": "transfer.training.compare",
    "evaluate": "transfer.evaluation.evaluate",
    "lr_find": "transfer.tuning.lr_find",
    "predict": "transfer.evaluation.evaluate",
    "search": "transfer.tuning.search",
    "train": "transfer.training.train",
    "write_report": "transfer.report.page",
}

__all__ = [
    "AdaptConfig",
    "AdviseConfig",
    "Backbone",
    "BackboneConfig",
    "BackboneFeatures",
    "ClassHeadKind",
    "CompareConfig",
    "DataConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FreezePlan",
    "FreezePolicy",
    "HeadConfig",
    "HeadKind",
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
    "adapt",
    "advise",
    "compare",
    "evaluate",
    "export",
    "load",
    "load_table",
    "lr_find",
    "predict",
    "register_head",
    "register_method",
    "search",
    "split",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'transfer' has no attribute {name!r}")
