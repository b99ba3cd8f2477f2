"""Every router: what two processes count together is what one process counts over the same tokens."""

import socket
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from workbench.core import RouteContext, Tally
from workbench.routers import ROUTERS
from workbench.train.loss import auxiliary, token_losses
from workbench.train.micro_batch import MicroBatch, tally

RANKS = 2


def load_stage() -> ModuleType:
    """The module beside this file, in a process without pytest."""
    spec = spec_from_file_location("contracts_stage", Path(__file__).parent / "stage.py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def part_of(model, stage, rank: int) -> MicroBatch:
    """What a rank's forward pass over its own tokens leaves behind."""
    generator = torch.Generator().manual_seed(rank)
    token_ids = torch.randint(stage.VOCABULARY, (2, 24 + rank), generator=generator)
    context = RouteContext(phase="train", step=3, num_steps=100, data_rank=rank)
    with torch.no_grad():
        output = model(token_ids, context=context)
        losses = token_losses(output.logits, token_ids)
        aux = auxiliary(output.sites, [layer.router for layer in model.moe_layers()], losses)
    return MicroBatch(loss=float(losses.mean()), tokens=losses.numel(), sites=output.sites, aux=aux)


def counts_of(tallies: tuple[Tally, ...]) -> torch.Tensor:
    """Demand, kept rows and tokens of every site, one row each."""
    return torch.stack([torch.cat((own.demand, own.kept, torch.tensor([own.tokens]))) for own in tallies])


def work(rank: int, port: int, names: tuple[str, ...], folder: str) -> None:
    """A rank: count for every router, add up over ranks, leave own and summed counts in a file."""
    torch.set_num_threads(1)
    stage = load_stage()
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    found = {}
    for name in names:
        own = counts_of(tally([part_of(stage.model_of(ROUTERS.get(name)), stage, rank)]))
        total = own.clone()
        dist.all_reduce(total)
        found[name] = torch.stack((own, total))
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def counted(tmp_path_factory) -> list[dict[str, torch.Tensor]]:
    """Own and summed counts of each rank, for every router, from one start of the processes."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, args=(port, ROUTERS.names(), str(folder)), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.distributed
def test_two_processes_count_what_one_counts(counted, router_name, stage):
    model = stage.model_of(ROUTERS.get(router_name))
    parts = [part_of(model, stage, rank) for rank in range(RANKS)]
    alone = counts_of(tally(parts))
    for rank in range(RANKS):
        own, total = counted[rank][router_name]
        assert torch.equal(own, counts_of(tally([parts[rank]])))
        assert torch.equal(total, alone)
        assert not torch.equal(own, alone)
