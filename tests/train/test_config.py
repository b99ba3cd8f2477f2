"""The training configuration refuses what it cannot honour, and survives a round trip through JSON."""

import json

import pytest

from workbench.train.config import TrainConfig


def test_the_configuration_survives_json():
    config = TrainConfig(seed=7, num_steps=50, schedule="cosine", dtype="bfloat16", learning_rate=1)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be int, got 2.5"),
        ({"learning_rate": -1.0}, "learning_rate must be at least 0, got -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be at least 0, got nan"),
        ({"learning_rate": "fast"}, "learning_rate must be float, got 'fast'"),
        ({"recompute": 1}, "recompute must be bool, got 1"),
        ({"beta1": 1.5}, "beta1 must be between 0 and 1, got 1.5"),
        ({"decay_share": 2}, "decay_share must be between 0 and 1, got 2"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be at least 1, got 0"),
        ({"schedule": "cosin"}, r"schedule must be one of wsd, cosine; got 'cosin' \(did you mean 'cosine'\?\)"),
        ({"dtype": "float23"}, r"dtype must be one of auto, float32, bfloat16; got 'float23' .*'float32'"),
    ],
)
def test_a_wrong_value_is_refused(changes, message):
    # by `check`, as the command line does: the constructor's signature is checked first while testing.
    with pytest.raises(ValueError, match=message):
        TrainConfig.check(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"schedule": "cosine"}, "a cosine .* needs num_steps"),
    ],
)
def test_the_constructor_refuses_too(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_an_unknown_option_is_answered_with_the_right_name():
    with pytest.raises(ValueError, match=r"no training option 'batchsize' \(did you mean 'batch_size'\?\)"):
        TrainConfig.from_json({"batchsize": 3})


def test_the_table_names_every_option():
    config = TrainConfig()
    assert all(name in config._repr_html_() for name in config.to_json())
