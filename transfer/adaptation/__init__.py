"""From labelled domains to one without labels: a loss or closed form per method, chosen without target labels.

Examples
--------
>>> from transfer.adaptation import AdaptConfig, ShiftConfig
>>> config = AdaptConfig(ShiftConfig("office31", source=("amazon",), target="webcam"))
>>> config.method.method
('auto',)
"""

from transfer.config.adapt import AdaptConfig, MethodConfig, ShiftConfig, StepsConfig

__all__ = ["AdaptConfig", "MethodConfig", "ShiftConfig", "StepsConfig"]
