"""One rank of the two that count together: `python count_rank.py RANK FOLDER`, started by the test beside it."""

import sys
from collections.abc import Mapping
from pathlib import Path

import stage
import torch
import torch.distributed as dist
from torch import Tensor

from workbench.core import RouteContext, Tally
from workbench.model.transformer import Transformer
from workbench.routers import ROUTERS
from workbench.train.loss import auxiliary, token_losses
from workbench.train.micro_batch import MicroBatch, tally

RANKS = 2


def part_of(model: Transformer, rank: int) -> MicroBatch:
    """What a rank's forward pass over its own tokens leaves behind."""
    generator = torch.Generator().manual_seed(rank)
    token_ids = torch.randint(stage.VOCABULARY, (2, 24 + rank), generator=generator)
    context = RouteContext(phase="train", step=3, num_steps=100, data_rank=rank)
    with torch.no_grad():
        output = model(token_ids, context=context)
        losses = token_losses(output.logits, token_ids)
        aux = auxiliary(output.sites, model.routers_of(output.sites), losses, output.context)
    return MicroBatch(loss=float(losses.mean()), tokens=losses.numel(), sites=output.sites, aux=aux)


def counts_of(tallies: tuple[Tally, ...]) -> Tensor:
    """Demand, kept rows and tokens of every site, one row each."""
    return torch.stack([torch.cat((own.demand, own.kept, torch.tensor([own.tokens]))) for own in tallies])


def own_counts(name: str, ranks: range) -> Tensor:
    """The counts of a router's model over the tokens of some ranks, in this process."""
    model = stage.model_of(ROUTERS.get(name))
    return counts_of(tally([part_of(model, rank) for rank in ranks]))


def work(rank: int, folder: Path) -> Mapping[str, Tensor]:
    """For every router, the counts of this rank and their sum over ranks."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    found = {}
    for name in ROUTERS.names():
        own = own_counts(name, range(rank, rank + 1))
        total = own.clone()
        dist.all_reduce(total)
        found[name] = torch.stack((own, total))
    dist.destroy_process_group()
    return found


if __name__ == "__main__":
    torch.save(work(int(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[2]) / f"{sys.argv[1]}.pt")
