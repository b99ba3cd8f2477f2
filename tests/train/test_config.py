"""The training configuration refuses what it cannot honour, and survives a round trip through JSON."""

import json

import pytest

from workbench.train.config import TrainConfig

LOSSES = {
    "balance_over": "global_batch",
    "aux_weights": {"entropy": 1e-3, "balance": 1},
    "aux_schedule": {"balance": "linear:first=1,last=0.1"},
}


def test_the_configuration_survives_json():
    config = TrainConfig(seed=7, num_steps=50, schedule="cosine", dtype="bfloat16", learning_rate=1, **LOSSES)
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
        ({"balance_over": "batch"}, r"balance_over must be one of micro_batch, global_batch; got 'batch'"),
        ({"aux_weights": "z:1"}, r"aux_weights must say .* by its name, such as {'z': 0.001}; got 'z:1'"),
        ({"aux_weights": {1: 0.5}}, r"aux_weights must say something of each loss .*got {1: 0.5}"),
        ({"aux_weights": {"z": "much"}}, "aux_weights of 'z' must be float, got 'much'"),
        ({"aux_weights": {"z": True}}, "aux_weights of 'z' must be float, got True"),
        ({"aux_weights": {"z": float("inf")}}, "aux_weights of 'z' must be a finite number, got inf"),
        ({"aux_schedule": ["linear"]}, r"aux_schedule must say .* such as {'balance': 'linear:.*; got \['linear'\]"),
        ({"aux_schedule": {"z": 0.5}}, "aux_schedule of 'z' must be str, got 0.5"),
        ({"aux_schedule": {"z": "linea"}}, "the shape of aux_schedule of 'z' must be one of linear, cosine, step"),
        ({"aux_schedule": {"z": "step:at=2"}}, "aux_schedule of 'z': at must be between 0 and 1, got 2"),
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
        ({"aux_schedule": {"z": "linear"}}, "aux_schedule needs num_steps, the step at which it ends; got None"),
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
