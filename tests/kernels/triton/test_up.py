"""The up-projection against float64: pre-activations and activations, and neither when not asked for."""

import pytest


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "relu"])
def test_every_activation_in_float32(activation, interpreted, small_errors):
    small_errors(
        interpreted("up_errors", case="ragged", dtype="float32", activation=activation, keeps=[True, True]), "float32"
    )


@pytest.mark.parametrize("case", ["foreign_ids", "all_in_one_expert"])
def test_float16(case, interpreted, small_errors):
    small_errors(interpreted("up_errors", case=case, dtype="float16", activation="silu", keeps=[True, True]), "float16")


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "relu"])
def test_nan_stays_nan(activation, interpreted, all_true):
    all_true(interpreted("nan_passes", activation=activation))


@pytest.mark.parametrize(("keeps", "absent"), [([True, False], "activated"), ([False, True], "hidden")])
def test_what_is_not_kept_is_not_made(keeps, absent, interpreted, small_errors):
    errors = interpreted("up_errors", case="one_token", dtype="float32", activation="silu", keeps=keeps)
    small_errors(errors, "float32", exact=(absent,))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", ["ragged", "foreign_ids", "many"])
def test_on_a_gpu(case, dtype, on_gpu, small_errors):
    for activation in ("silu", "gelu", "gelu_tanh", "relu"):
        words = {"case": case, "dtype": dtype, "activation": activation, "keeps": [True, True]}
        small_errors(on_gpu("up_errors", **words), dtype)
