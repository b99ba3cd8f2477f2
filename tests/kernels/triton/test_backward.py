"""The product behind the activation: its gradient, the scaled activations and the weights' gradients."""

import pytest


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "relu"])
def test_every_activation_in_float32(activation, interpreted, small_errors):
    words = {"case": "foreign_ids", "dtype": "float32", "activation": activation, "block_n": 16}
    small_errors(interpreted("activation_errors", **words), "float32")


def test_a_wide_tile_is_written_in_pieces(interpreted, small_errors):
    words = {"case": "an_expert_without_rows", "dtype": "float16", "activation": "silu", "block_n": 128}
    small_errors(interpreted("activation_errors", **words), "float16")


def test_bfloat16(interpreted, small_errors):
    words = {"case": "foreign_ids", "dtype": "bfloat16", "activation": "gelu", "block_n": 16}
    small_errors(interpreted("activation_errors", **words), "bfloat16")


def test_more_slots_than_are_searched_at_once(interpreted, small_errors):
    words = {"case": "all_experts", "dtype": "float32", "activation": "silu", "block_n": 16}
    small_errors(interpreted("activation_errors", **words), "float32")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", ["foreign_ids", "all_experts", "the_same_expert_twice", "many"])
def test_on_a_gpu(case, dtype, on_gpu, small_errors):
    for activation, block_n in (("silu", 16), ("gelu", 64), ("gelu_tanh", 128), ("relu", 128)):
        words = {"case": case, "dtype": dtype, "activation": activation, "block_n": block_n}
        small_errors(on_gpu("activation_errors", **words), dtype)
