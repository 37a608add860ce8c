"""Transfer learning on pretrained CNN backbones.

Every name that a script needs is importable from here; torch is imported when a name that needs it is first used.

Examples
--------
>>> import transfer
>>> config = transfer.TrainConfig(data=transfer.DataConfig("digits"), policy=transfer.PolicyConfig("linear_probe"))
>>> config.backbone.backbone
'tf_efficientnet_lite0'
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
    UpdateConfig,
)
from transfer.config.curation import InspectConfig, PickConfig, SimulationConfig
from transfer.config.shared import BackboneConfig, CacheConfig, RunConfig, ViewConfig
from transfer.config.train import (
    CompareConfig,
    DataConfig,
    HeadConfig,
    LearnConfig,
    PolicyConfig,
    RegulariseConfig,
    TrainConfig,
)
from transfer.errors import TransferError
from transfer.runtime.version import VERSION

if TYPE_CHECKING:
    from transfer.adaptation.adapt import adapt
    from transfer.adaptation.registry import register_method
    from transfer.backbones import Backbone, load, register_backbone
    from transfer.curation.inspect import inspect
    from transfer.curation.pick import pick
    from transfer.data.images.preprocessing import Preprocessing
    from transfer.data.sets.load import load_table
    from transfer.data.splits import split
    from transfer.data.table import ImageTable
    from transfer.estimator import BackboneFeatures, TransferClassifier
    from transfer.evaluation.evaluate import evaluate
    from transfer.evaluation.finished_run import load_run
    from transfer.evaluation.predict import predict
    from transfer.formats import export
    from transfer.freeze import FreezePlan, FreezePolicy, register_policy
    from transfer.heads import ClassHeadKind, HeadKind, register_head
    from transfer.report.page import write_contact_sheet, write_inspection, write_report
    from transfer.training.compare import compare
    from transfer.training.train import train
    from transfer.tuning.advise import advise
    from transfer.tuning.lr_find import lr_find
    from transfer.tuning.search import search
    from transfer.updating.update import update

__version__ = VERSION

_LAZY = {
    "Backbone": "transfer.backbones",
    "BackboneFeatures": "transfer.estimator",
    "ClassHeadKind": "transfer.heads",
    "FreezePlan": "transfer.freeze",
    "FreezePolicy": "transfer.freeze",
    "HeadKind": "transfer.heads",
    "ImageTable": "transfer.data.table",
    "Preprocessing": "transfer.data.images.preprocessing",
    "TransferClassifier": "transfer.estimator",
    "adapt": "transfer.adaptation.adapt",
    "advise": "transfer.tuning.advise",
    "compare": "transfer.training.compare",
    "evaluate": "transfer.evaluation.evaluate",
    "export": "transfer.formats",
    "inspect": "transfer.curation.inspect",
    "load": "transfer.backbones",
    "load_run": "transfer.evaluation.finished_run",
    "load_table": "transfer.data.sets.load",
    "lr_find": "transfer.tuning.lr_find",
    "pick": "transfer.curation.pick",
    "predict": "transfer.evaluation.predict",
    "register_backbone": "transfer.backbones",
    "register_head": "transfer.heads",
    "register_method": "transfer.adaptation.registry",
    "register_policy": "transfer.freeze",
    "search": "transfer.tuning.search",
    "split": "transfer.data.splits",
    "train": "transfer.training.train",
    "update": "transfer.updating.update",
    "write_contact_sheet": "transfer.report.page",
    "write_inspection": "transfer.report.page",
    "write_report": "transfer.report.page",
}

__all__ = [
    "AdaptConfig",
    "AdviseConfig",
    "Backbone",
    "BackboneConfig",
    "BackboneFeatures",
    "CacheConfig",
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
    "InspectConfig",
    "LearnConfig",
    "LrFindConfig",
    "MethodConfig",
    "PickConfig",
    "PolicyConfig",
    "PredictConfig",
    "Preprocessing",
    "RegulariseConfig",
    "RunConfig",
    "SearchConfig",
    "ShiftConfig",
    "SimulationConfig",
    "StepsConfig",
    "TrainConfig",
    "TransferClassifier",
    "TransferError",
    "UpdateConfig",
    "ViewConfig",
    "adapt",
    "advise",
    "compare",
    "evaluate",
    "export",
    "inspect",
    "load",
    "load_run",
    "load_table",
    "lr_find",
    "pick",
    "predict",
    "register_backbone",
    "register_head",
    "register_method",
    "register_policy",
    "search",
    "split",
    "train",
    "update",
    "write_contact_sheet",
    "write_inspection",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'transfer' has no attribute {name!r}")
