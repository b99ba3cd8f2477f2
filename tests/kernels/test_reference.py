"""The specification itself, checked by hand: nothing else stands behind it."""

import math

import torch
from workbench_kernels.reference import gate_ref, grouped_mm_ref, moe_mlp_ref, permute_ref, unpermute_ref


def test_the_gate_is_a_product_in_float32():
    x, weight = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16), torch.tensor([[3.0, 4.0], [-1.0, 0.5]])
    logits = gate_ref(x, weight)
    assert (logits.dtype, logits.tolist()) == (torch.float32, [[11.0, 0.0]])


def test_the_gate_does_not_round_to_the_tokens_dtype():
    # 257 needs nine bits, and bfloat16 has eight.
    ones = torch.ones(1, 257, dtype=torch.bfloat16)
    assert gate_ref(ones, torch.ones(1, 257)).item() == 257


def test_permute_repeats_the_tokens_of_the_rows():
    assert permute_ref(torch.tensor([[1.0], [2.0]]), torch.tensor([1, 0, 1])).flatten().tolist() == [2, 1, 2]


def test_unpermute_weighs_and_adds_and_skips_the_absent():
    rows, row_of = torch.tensor([[10.0], [100.0]]), torch.tensor([[1, 0], [-1, 1], [-1, -1]])
    weight = torch.tensor([[0.5, 2.0], [9.0, 0.25], [9.0, 9.0]])
    assert unpermute_ref(rows, row_of, weight).flatten().tolist() == [70, 25, 0]


def test_grouped_product_gives_every_group_its_matrix():
    rows, weight = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[[10.0]], [[7.0]], [[100.0]]])
    assert grouped_mm_ref(rows, weight, torch.tensor([2, 0, 1])).flatten().tolist() == [10, 20, 300]


def test_one_swiglu_expert_by_hand():
    # gate 2, up 3, down 5: 5 * silu(2x) * 3x, at x = 1 and weight 0.5.
    gate_up, down = torch.tensor([[[2.0], [3.0]]]), torch.tensor([[[5.0]]])
    out = moe_mlp_ref(torch.ones(1, 1), torch.tensor([[0]]), torch.tensor([[0.5]]), gate_up, down)
    assert math.isclose(out.item(), 0.5 * 5 * (2 / (1 + math.exp(-2))) * 3, rel_tol=1e-6)


def test_an_expert_of_minus_one_adds_nothing():
    gate_up, down = torch.ones(1, 2, 1), torch.full((1, 1, 1), torch.inf)
    out = moe_mlp_ref(torch.ones(2, 1), torch.tensor([[-1], [-1]]), torch.ones(2, 1), gate_up, down)
    assert out.tolist() == [[0], [0]]


def test_no_tokens_give_no_tokens():
    none = torch.zeros(0, 2, dtype=torch.long)
    assert moe_mlp_ref(torch.zeros(0, 3), none, torch.zeros(0, 2), torch.ones(1, 4, 3), torch.ones(1, 3, 2)).shape == (
        0,
        3,
    )
    assert unpermute_ref(torch.zeros(0, 3), none, torch.zeros(0, 2)).shape == (0, 3)
