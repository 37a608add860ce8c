"""Engines that run frozen stages faster than torch, with the same result but for rounding."""

from transfer.backbones.engines.activation_ranges import ActivationRanges
from transfer.backbones.engines.calibration import calibrate
from transfer.backbones.engines.choice import choose_engine
from transfer.backbones.engines.compiled import CompiledStages, StagesKey, compile_stages, is_compiled
from transfer.backbones.engines.torch_compile import COMPILE

__all__ = [
    "COMPILE",
    "ActivationRanges",
    "CompiledStages",
    "StagesKey",
    "calibrate",
    "choose_engine",
    "compile_stages",
    "is_compiled",
]
