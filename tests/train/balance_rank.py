"""One rank of the two that balance together: `python balance_rank.py RANK FOLDER`, started by a test beside it."""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.core import Batch, RouteContext, Spec
from workbench.model import ModelConfig
from workbench.model.transformer import Transformer, initialise
from workbench.train.global_counts import GlobalCounts
from workbench.train.loss_rules import LossRules
from workbench.train.micro_batch import run_micro_batch
from workbench.train.precision import FULL_PRECISION

RANKS = 2
SHAPE = ModelConfig(
    vocab_size=50,
    width=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    num_experts=4,
    expert_width=32,
    router=Spec("top_k", {"top_k": 1, "balance": 1.0}),
)


def batch_of(ranks: range) -> Batch:
    """The sequences of some ranks; each rank has words of its own, so that its experts are its own."""
    rows = [torch.randint(8, (3, 13), generator=torch.Generator().manual_seed(rank)) + 20 * rank for rank in ranks]
    ids = torch.cat(rows)
    return Batch(token_ids=ids[:, :-1].contiguous(), target_ids=ids[:, 1:].contiguous(), domains=("a",))


def gradients_of(batch: Batch, group: dist.ProcessGroup | None) -> dict[str, Tensor]:
    """Every gradient of one micro-batch, balanced over the group."""
    model = initialise(Transformer(SHAPE), 0).double()
    rules = LossRules(counts=GlobalCounts(group))
    run_micro_batch(model, batch, RouteContext(phase="train"), FULL_PRECISION, share=1.0, rules=rules)
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def work(rank: int, folder: Path) -> Mapping[str, Tensor]:
    """The gradients of this rank, and the loads of two micro-batches counted by hand."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    counts = GlobalCounts(dist.group.WORLD)
    own = torch.tensor([[[4, 0], [0, 2]], [[1, 3], [2, 0]]])[rank]
    loads = torch.stack([counts.add([part])[0] for part in own])
    gradients = gradients_of(batch_of(range(rank, rank + 1)), dist.group.WORLD)
    dist.destroy_process_group()
    return {"loads": loads, **gradients}


if __name__ == "__main__":
    torch.save(work(int(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[2]) / f"{sys.argv[1]}.pt")
