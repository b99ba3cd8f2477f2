"""The whole layer, forward and backward, on poisoned memory, against autograd of the reference in float64."""

import pytest
from workbench_kernels.triton import backward, down, grouped_mm, plan, up, wgrad

CASES = [
    "ragged",
    "an_expert_without_rows",
    "all_in_one_expert",
    "one_choice",
    "all_experts",
    "no_tokens",
    "one_token",
    "no_choices",
    "foreign_ids",
    "all_absent",
    "the_same_expert_twice",
    "more_experts_than_are_merged",
]
PLAN_AND_FORWARD = ["_place", "_up", "_multiply", "_combine"]
BACKWARD = ["_activation_backward", "_both_weight_gradients", "_multiply", "_combine"]
LARGE = [
    *["_count", "_place", "_up", "_multiply", "_combine", "_activation_backward"],
    *["_largest_first", "_weight_gradient", "_weight_gradient", "_multiply", "_combine"],
]


@pytest.mark.parametrize("case", CASES)
def test_float32(case, interpreted, small_errors):
    small_errors(interpreted("layer_errors", case=case, dtype="float32"), "float32")


@pytest.mark.parametrize("case", ["ragged", "foreign_ids"])
def test_float16_with_odd_sizes(case, interpreted, small_errors):
    small_errors(interpreted("layer_errors", case=case, dtype="float16", size="odd"), "float16")


@pytest.mark.parametrize("size", ["small", "odd"])
@pytest.mark.parametrize("case", ["ragged", "foreign_ids"])
def test_bfloat16(case, size, interpreted, small_errors):
    small_errors(interpreted("layer_errors", case=case, dtype="bfloat16", size=size), "bfloat16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_small_layer_takes_eight_launches_and_no_operator(dtype, interpreted):
    launched = interpreted("layer_launches", dtype=dtype)
    assert launched == {"kernels": PLAN_AND_FORWARD + BACKWARD, "operators": []}


def test_pre_activations_made_again_take_one_launch_more(interpreted):
    launched = interpreted("layer_launches", dtype="float32", save="input")
    assert launched == {"kernels": [*PLAN_AND_FORWARD, "_up", *BACKWARD], "operators": []}


def test_a_wide_sum_takes_no_launch_more(interpreted):
    launched = interpreted("layer_launches", dtype="bfloat16", is_wide=True)
    assert launched == {"kernels": PLAN_AND_FORWARD, "operators": []}


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize(
    ("sizes", "kernels"),
    [
        ({"tokens": 4096, "top_k": 2, "experts": 16, "width": 256, "features": 512}, PLAN_AND_FORWARD + BACKWARD),
        ({"tokens": 1, "top_k": 8, "experts": 64, "width": 512, "features": 256}, PLAN_AND_FORWARD + BACKWARD),
        ({"tokens": 32768, "top_k": 8, "experts": 128, "width": 2048, "features": 768}, LARGE),
        ({"tokens": 65536, "top_k": 2, "experts": 16, "width": 256, "features": 512}, LARGE),
    ],
    ids=["small", "one_token", "large", "many_tokens"],
)
def test_sizes_decide_what_is_one_launch(sizes, kernels, adds, compiled):
    launched = compiled("engine_launches", dtype="bfloat16", adds=adds, **sizes)
    assert launched == {"kernels": kernels, "operators": []}


def test_pre_activations_made_again(interpreted, small_errors):
    words = {"case": "ragged", "dtype": "float32", "activation": "gelu", "keeps_hidden": False}
    small_errors(interpreted("layer_errors", **words), "float32")


def test_two_runs_are_equal_bit_for_bit(interpreted, all_true):
    all_true(interpreted("layer_twice", case="one_token", dtype="float32"))


def test_added_into_buffers_and_only_what_is_needed(interpreted, small_errors):
    exact = ("none_returned", "untouched_without_rows", "only_x", "only_weight", "only_gate_up", "only_down")
    small_errors(interpreted("layer_options", dtype="float32"), "float32", exact=exact)


def test_the_signature_checker_leaves_kernels_alone():
    # what it wraps loses the names of its module, and then does not compile.
    kernels = {
        up: up._up,
        down: down._combine,
        backward: backward._activation_backward,
        wgrad: wgrad._weight_gradient,
        grouped_mm: grouped_mm._multiply,
        plan: plan._place,
    }
    assert [module.__name__ for module, kernel in kernels.items() if kernel.fn.__globals__ is not vars(module)] == []


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("size", ["small", "odd", "large"])
@pytest.mark.parametrize("case", [*CASES, "many", "many_skewed"])
def test_on_a_gpu(case, size, dtype, on_gpu, small_errors):
    small_errors(on_gpu("layer_errors", case=case, dtype=dtype, size=size), dtype)


@pytest.mark.gpu
def test_a_gpu_runs_eight_kernels_for_a_small_layer(on_gpu):
    assert on_gpu("layer_launches", dtype="bfloat16")["kernels"] == PLAN_AND_FORWARD + BACKWARD


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_runs_on_a_gpu_are_equal_bit_for_bit(dtype, on_gpu, all_true):
    all_true(on_gpu("layer_twice", case="many_skewed", dtype=dtype, size="large"))


@pytest.mark.gpu
def test_a_cuda_graph_replays_another_batch(on_gpu, all_true):
    all_true(on_gpu("graph_equal", dtype="bfloat16"))


@pytest.mark.gpu
@pytest.mark.slow
def test_beyond_two_to_the_31_elements(on_gpu, small_errors):
    small_errors(on_gpu("far_equal", dtype="bfloat16"), "bfloat16")
