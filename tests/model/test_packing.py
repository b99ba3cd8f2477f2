import pytest
import torch

from workbench.model.packing import packing_of

CPU = torch.device("cpu")
MASK = torch.tensor([[False, True, True], [True, True, True], [True, False, False]])


def test_real_tokens_are_packed_sequence_after_sequence():
    packing = packing_of(torch.Size((3, 3)), MASK, None, CPU)
    assert packing.pack(torch.arange(9).view(3, 3)).tolist() == [1, 2, 3, 4, 5, 6]
    assert packing.sequence.tolist() == [0, 0, 1, 1, 1, 2]
    assert packing.position.tolist() == [0, 1, 0, 1, 2, 0]


def test_padding_comes_back_as_zeros():
    packing = packing_of(torch.Size((3, 3)), MASK, None, CPU)
    x = torch.randn(3, 3, 2)
    assert torch.equal(packing.pad(packing.pack(x)), x * MASK.unsqueeze(-1))


def test_earlier_tokens_of_a_cache_count_as_positions():
    packing = packing_of(torch.Size((2, 2)), None, torch.tensor([5, 3]), CPU)
    assert packing.position.tolist() == [5, 6, 3, 4]


def test_a_full_mask_costs_nothing():
    packing = packing_of(torch.Size((2, 3)), torch.ones(2, 3, dtype=torch.bool), None, CPU)
    assert packing.mask is None and packing.place is None
    x = torch.randn(2, 3, 4)
    assert packing.pad(packing.pack(x)).data_ptr() == x.data_ptr()


def test_a_sequence_of_padding_alone_has_no_token():
    mask = torch.tensor([[False, False], [True, False]])
    packing = packing_of(torch.Size((2, 2)), mask, None, CPU)
    assert packing.sequence.tolist() == [1]
    assert packing.pad(torch.ones(1, 1)).flatten().tolist() == [0, 0, 1, 0]


def test_gradients_pass_both_ways():
    packing = packing_of(torch.Size((3, 3)), MASK, None, CPU)
    x = torch.randn(3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: packing.pad(packing.pack(t)), x)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"mask must have the batch's shape \(3, 2\), got \(3, 3\)"):
        packing_of(torch.Size((3, 2)), MASK, None, CPU)
