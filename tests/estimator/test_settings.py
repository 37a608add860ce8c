import pytest

from transfer.config.adapt import AdaptConfig
from transfer.config.train import LearnConfig, TrainConfig
from transfer.data.pixel_files import InputError
from transfer.errors import TransferError
from transfer.estimator.settings import CONFIG_PARTS, override_config

NOTHING = dict.fromkeys(CONFIG_PARTS)


def test_parameters_that_are_none_change_nothing():
    assert override_config(None, NOTHING, adapting=False) == TrainConfig()
    assert override_config(None, NOTHING, adapting=True) == AdaptConfig()
    given = TrainConfig(learn=LearnConfig(lr=0.5))
    assert override_config(given, NOTHING, adapting=False) == given


def test_each_parameter_reaches_its_part():
    given = {"crop": "border", "policy": "partial:1", "lr": 0.25, "calibrate": False, "cache": False}
    trained = override_config(TrainConfig(learn=LearnConfig(lr=0.5, epochs=7)), NOTHING | given, adapting=False)
    assert (trained.backbone.crop, trained.policy.policy, trained.cache.cache) == ("border", "partial:1", False)
    assert (trained.learn.lr, trained.learn.calibrate, trained.learn.epochs) == (0.25, False, 7)
    adapted = override_config(None, NOTHING | given | {"method": "mcc"}, adapting=True)
    assert (adapted.backbone.crop, adapted.method.policy, adapted.method.method) == ("border", "partial:1", ("mcc",))
    assert (adapted.steps.lr, adapted.steps.calibrate, adapted.cache.cache) == (0.25, False, False)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="heads='joint' has no effect if sample_domain has target domains"):
        override_config(None, NOTHING | {"heads": "joint"}, adapting=True)
    with pytest.raises(InputError, match="config must be a AdaptConfig, not a TrainConfig"):
        override_config(TrainConfig(), NOTHING, adapting=True)
    with pytest.raises(TransferError, match="--crop 'bordr'"):
        override_config(None, NOTHING | {"crop": "bordr"}, adapting=False)
