"""Loads over a whole step: the numbers of the paper's two groups, and two processes that are one."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from workbench.core import SparseRouting
from workbench.train.global_counts import GlobalCounts, load_of
from workbench.train.loss import balance

RANKS = 2


def group_of(prob: list[list[float]], tokens: int = 4) -> SparseRouting:
    """One group of tokens that all take their most probable expert."""
    rows = torch.tensor(prob).repeat(tokens // len(prob), 1)
    best = rows.argmax(-1, keepdim=True)
    return SparseRouting.from_topk(best, torch.ones(len(rows), 1), num_experts=rows.shape[1], prob=rows)


def joint_load(groups: list[SparseRouting]) -> Tensor:
    """The load once every group is counted in."""
    counts = GlobalCounts()
    return [counts.add([group.demand])[0] for group in groups][-1]


def values(groups: list[SparseRouting], load: Tensor | None = None) -> list[float]:
    """The balance loss of each group, with its own load or a common one."""
    return [float(balance(group, load_of(group.demand) if load is None else load)) for group in groups]


def test_one_group_has_the_same_load_either_way():
    group = group_of([[0.9, 0.1], [0.3, 0.7]])
    assert torch.equal(joint_load([group]), load_of(group.demand))


@pytest.mark.parametrize(("sure", "alone", "together"), [(1.0, 2.0, 1.0), (0.9, 1.8, 1.0)])
def test_two_specialised_groups_are_punished_alone_and_even_together(sure, alone, together):
    groups = [group_of([[sure, 1 - sure]]), group_of([[1 - sure, sure]])]
    assert values(groups) == pytest.approx([alone] * 2)
    assert values(groups, joint_load(groups)) == pytest.approx([together] * 2)


def test_four_equal_parts_are_the_whole_in_value_and_gradient(assert_close):
    whole = torch.randn(40, 4, requires_grad=True)
    parts = whole.detach().clone().requires_grad_()

    def routing(logit: Tensor) -> SparseRouting:
        best = logit.topk(2).indices
        return SparseRouting.from_topk(best, torch.ones(best.shape), num_experts=4, prob=logit.softmax(-1))

    one = routing(whole)
    expected = balance(one, load_of(one.demand))
    expected.backward()
    groups = [routing(part) for part in parts.split(10)]
    load = joint_load(groups)
    found = torch.stack([balance(group, load) for group in groups]).mean()
    found.backward()
    assert_close(found, expected)
    assert_close(parts.grad, whole.grad)


def test_the_load_is_a_constant_and_the_slope_of_the_loss(assert_close):
    groups = [group_of([[0.9, 0.1]]), group_of([[0.2, 0.8]])]
    load = joint_load(groups)
    assert not load.requires_grad
    mean = torch.tensor([0.6, 0.4], requires_grad=True)
    own = SparseRouting.from_topk(torch.tensor([[0]]), torch.ones(1, 1), num_experts=2, prob=mean[None])
    balance(own, load).backward()
    assert_close(mean.grad, 2 * load)


def test_the_first_of_a_step_see_less_and_the_last_sees_all():
    first, second = torch.tensor([4, 0]), torch.tensor([0, 12])
    counts = GlobalCounts()
    assert counts.add([first])[0].tolist() == [1, 0]
    assert counts.add([second])[0].tolist() == [0.25, 0.75]
    assert GlobalCounts().add([second])[0].tolist() == [0, 1]


def test_layers_are_counted_apart_and_may_have_other_sizes():
    counts = GlobalCounts()
    counts.add([torch.tensor([1, 3]), torch.tensor([2, 0, 2])])
    two, three = counts.add([torch.tensor([3, 1]), torch.tensor([0, 4, 0])])
    assert two.tolist() == [0.5, 0.5]
    assert three.tolist() == [0.25, 0.5, 0.25]


def test_an_even_load_costs_one_and_a_collapse_what_the_experts_are_many():
    group = group_of([[0.7, 0.1, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1]])
    assert values([group], torch.full((4,), 0.25)) == pytest.approx([1])
    assert values([group_of([[1.0, 0, 0, 0]])]) == pytest.approx([4])


def test_unequal_groups_are_the_whole_when_both_sides_count_tokens():
    # 100 tokens on expert 0, 300 on expert 1: the load is (1/4, 3/4).
    groups = [group_of([[0.9, 0.1]], 100), group_of([[0.2, 0.8]], 300)]
    small, large = values(groups, joint_load(groups))
    assert [small, large] == pytest.approx([0.6, 1.3])
    whole = 2 * (0.25 * 0.375 + 0.75 * 0.625)
    assert 0.25 * small + 0.75 * large == pytest.approx(whole) == pytest.approx(1.125)
    assert (small + large) / 2 == pytest.approx(0.95)


def test_no_assignment_is_no_load_and_no_layer_is_none():
    assert load_of(torch.zeros(3, dtype=torch.long)).tolist() == [0, 0, 0]
    assert GlobalCounts().add([]) == []


@pytest.fixture(scope="module")
def worker():
    """The module that each rank runs."""
    spec = importlib.util.spec_from_file_location("balance_rank", Path(__file__).parent / "balance_rank.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found(worker, tmp_path_factory) -> list[dict[str, Tensor]]:
    """What each of two processes has left in its file."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, worker.__file__]
    ranks = [
        subprocess.Popen([*command, str(rank), folder], stderr=subprocess.PIPE, text=True) for rank in range(RANKS)
    ]
    try:
        errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * RANKS, errors
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.distributed
def test_two_processes_are_one_with_both_batches(found, worker, assert_close):
    alone = worker.gradients_of(worker.batch_of(range(RANKS)), None)
    for name, expected in alone.items():
        # the token loss is taken in float32.
        mean = torch.stack([rank[name] for rank in found]).mean(0)
        assert_close(mean, expected, dtype=torch.float32)
    apart = [worker.gradients_of(worker.batch_of(range(rank, rank + 1)), None) for rank in range(RANKS)]
    gate = "blocks.0.feed_forward.router.gate.weight"
    assert not torch.allclose(torch.stack([one[gate] for one in apart]).mean(0), alone[gate], rtol=1e-3, atol=1e-6)


@pytest.mark.distributed
def test_all_ranks_hold_the_same_load_after_each_micro_batch(found, assert_close):
    # rank 0 counts (4, 0) and (0, 2), rank 1 counts (1, 3) and (2, 0).
    for rank in found:
        assert_close(rank["loads"], torch.tensor([[0.625, 0.375], [7 / 12, 5 / 12]]))
