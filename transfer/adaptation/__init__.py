"""From labelled domains to one without labels: an objective or closed form per method, chosen without target labels.

Examples
--------
>>> from transfer.adaptation import AdaptConfig, ShiftConfig, adapt
>>> config = AdaptConfig(ShiftConfig("office31", source=("amazon",), target="webcam"))
>>> config.method.method
('auto',)
"""

from typing import TYPE_CHECKING, Any

from transfer.config.adapt import AdaptConfig, CrossConfig, MethodConfig, ShiftConfig, StepsConfig

if TYPE_CHECKING:
    from transfer.adaptation.adapt import AdaptRun, adapt

__all__ = ["AdaptConfig", "AdaptRun", "CrossConfig", "MethodConfig", "ShiftConfig", "StepsConfig", "adapt"]


def __getattr__(name: str) -> Any:
    if name in ("AdaptRun", "adapt"):
        from transfer.adaptation import adapt as run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
