"""Every router: what two processes count together is what one process counts over the same tokens."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

RANKS = 2


@pytest.fixture(scope="module")
def counter(stage, neighbour):
    """The module that each rank runs."""
    return neighbour("count_rank")


@pytest.fixture(scope="module")
def counted(tmp_path_factory) -> list[dict[str, torch.Tensor]]:
    """Own and summed counts of each rank, for every router, from one start of the processes."""
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).parent / "count_rank.py"
    ranks = [
        subprocess.Popen([sys.executable, script, str(rank), folder], stderr=subprocess.PIPE, text=True)
        for rank in range(RANKS)
    ]
    try:
        errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * RANKS, errors
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.distributed
def test_two_processes_count_what_one_counts(counted, counter, router_name):
    alone = counter.own_counts(router_name, range(RANKS))
    for rank in range(RANKS):
        own, total = counted[rank][router_name]
        assert torch.equal(own, counter.own_counts(router_name, range(rank, rank + 1)))
        assert torch.equal(total, alone)
        assert not torch.equal(own, alone)
