"""Plans of every awkward shape, as the index tensors that kernels take."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor


class Plan(NamedTuple):
    """Who goes where: what a kernel gets, and the dropped-is-minus-one form that a reference gets."""

    expert: Tensor
    rows: Tensor
    row_of: Tensor
    counts: Tensor


def plan_of(expert: Tensor, experts: int) -> Plan:
    """The index tensors of a choice, by loops; -1 is a dropped or empty slot."""
    tokens, width = expert.shape
    slots = sorted((int(expert[t, k]), t, k) for t in range(tokens) for k in range(width) if expert[t, k] >= 0)
    row_of = torch.full((tokens, width), -1)
    for row, (_, t, k) in enumerate(slots):
        row_of[t, k] = row
    counts = torch.tensor([sum(e == own for e, _, _ in slots) for own in range(experts)])
    return Plan(expert, torch.tensor([t for _, t, _ in slots], dtype=torch.long), row_of, counts)


def cases() -> dict[str, tuple[Tensor, int]]:
    """The chosen experts of each case, and how many experts there are."""
    generator = torch.Generator().manual_seed(7)

    def ranked(tokens: int, experts: int, width: int) -> Tensor:
        return torch.rand(tokens, experts, generator=generator).argsort(-1)[:, :width]

    ragged = ranked(9, 4, 2)
    dropped = torch.where(torch.rand(9, 3, generator=generator) < 0.4, -1, ranked(9, 5, 3))
    return {
        "ragged": (ragged, 4),
        "an_expert_without_rows": (ragged, 6),
        "all_in_one_expert": (torch.full((5, 1), 2), 4),
        "one_choice": (ranked(6, 3, 1), 3),
        "all_experts": (ranked(4, 3, 3), 3),
        "one_expert": (torch.zeros(4, 1, dtype=torch.long), 1),
        "no_tokens": (torch.zeros(0, 2, dtype=torch.long), 3),
        "one_token": (torch.tensor([[2, 0]]), 3),
        "dropped": (dropped, 5),
        "a_token_without_rows": (torch.tensor([[0, 1], [-1, -1], [1, 2]]), 3),
        "all_dropped": (torch.full((3, 2), -1), 3),
        "no_choices": (torch.zeros(3, 0, dtype=torch.long), 3),
        "the_same_expert_twice": (torch.tensor([[1, 1], [0, 1], [2, 2]]), 3),
    }


@pytest.fixture(params=cases())
def plan(request) -> Plan:
    return plan_of(*cases()[request.param])


@pytest.fixture
def plan_named() -> Callable[[str], Plan]:
    return lambda name: plan_of(*cases()[name])


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request) -> torch.dtype:
    return request.param


@pytest.fixture
def draw(dtype) -> Callable[..., Tensor]:
    """A leaf of normal numbers; every call draws others."""
    generator = torch.Generator().manual_seed(3)

    def numbers(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    return numbers


def gradients(out: Tensor, leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Gradients for an uneven upstream gradient; zero where the output does not depend on a leaf."""
    if not out.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    upstream = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    return torch.autograd.grad(out, leaves, upstream, allow_unused=True, materialize_grads=True)


@pytest.fixture
def agree(assert_close) -> Callable[..., None]:
    """Two computations of the same number, with the gradients of every leaf."""

    def compare(ours: Tensor, reference: Tensor, leaves: tuple[Tensor, ...]) -> None:
        assert ours.dtype == reference.dtype
        assert ours.requires_grad
        assert_close(ours, reference)
        for got, expected in zip(gradients(ours, leaves), gradients(reference, leaves), strict=True):
            assert_close(got, expected)

    return compare
