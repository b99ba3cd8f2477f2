"""Training at `small`: tokens per second beside transformers' OLMoE of the same shape, and peak memory.

All train 16 x 256 tokens per step on the CPU with the same fused AdamW and gradient clipping, in float32 or under the
same bfloat16 autocast, interleaved in one process; medians and minima over the steps. Everyone takes a step untimed
before each timed one, because whoever ran before leaves cold caches and memory that is not there yet: training is many
steps of one model. The losses stand beside the times. The peer's `batched_mm` is left out: it would copy the weights of
every row, 17 GB a layer.
"""

import os
import resource
import statistics
import time

import pytest
import torch
import transformers
from transformers import OlmoeConfig, OlmoeForCausalLM
from workbench_kernels import backend_of

from workbench.core.context import RouteContext
from workbench.model.config import preset
from workbench.model.transformer import Transformer, initialise
from workbench.train.loss import auxiliary, token_losses
from workbench.train.precision import autocast

STEPS = 7
PEERS = ("grouped_mm", "eager")


class Ours:
    name = "workbench"

    def __init__(self):
        self.model = initialise(Transformer(preset("small")), 0)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)

    def loss(self, token_ids):
        output = self.model(token_ids[:, :-1], context=RouteContext(phase="train"))
        per_token = token_losses(output.logits, token_ids[:, 1:])
        routers = self.model.routers_of(output.sites)
        return per_token.mean() + auxiliary(output.sites, routers, per_token, output.context).total


class Peer:
    def __init__(self, implementation):
        self.name = f"transformers OLMoE {implementation}"
        shape = preset("small")
        config = OlmoeConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.width,
            intermediate_size=shape.expert_width,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            num_key_value_heads=shape.num_kv_heads,
            num_experts=shape.num_experts,
            num_experts_per_tok=2,
            tie_word_embeddings=True,
            output_router_logits=True,
            eos_token_id=0,
            experts_implementation=implementation,
        )
        torch.manual_seed(0)
        self.model = OlmoeForCausalLM(config)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)

    def loss(self, token_ids):
        # transformers shifts labels itself.
        return self.model(input_ids=token_ids[:, :-1], labels=token_ids[:, :-1]).loss


def step_seconds(trained, token_ids, dtype=torch.float32):
    began = time.perf_counter()
    trained.optimizer.zero_grad()
    with autocast(torch.device("cpu"), dtype):
        loss = trained.loss(token_ids)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained.model.parameters(), 1.0)
    trained.optimizer.step()
    return time.perf_counter() - began, float(loss.detach())


def settled_step(trained, token_ids, dtype):
    """A timed step after one that is not, and the loss of the first of both."""
    _, loss = step_seconds(trained, token_ids, dtype)
    return step_seconds(trained, token_ids, dtype)[0], loss


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def bench_small_against_olmoe(dtype):
    token_ids = torch.randint(0, 4096, (16, 257), generator=torch.Generator().manual_seed(0))
    contenders = [Ours(), *(Peer(implementation) for implementation in PEERS)]
    runs = [[settled_step(trained, token_ids, dtype) for trained in contenders] for _ in range(STEPS)]
    word, tokens = str(dtype).removeprefix("torch."), 16 * 256
    print(
        f"\nsmall, 16 x 256 tokens, products in {word}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, {STEPS} interleaved steps, each after an untimed one, seed 0, "
        f"load {os.getloadavg()[0]:.1f}; {backend_of('cpu', dtype).reason}"
    )
    print(f"{'':32}{'tokens/s median':>17}{'best':>9}{'parameters':>12}   first and last loss")
    medians, minima = [], []
    for trained, own in zip(contenders, zip(*runs, strict=True), strict=True):
        seconds, losses = zip(*own, strict=True)
        medians.append(statistics.median(seconds))
        minima.append(min(seconds))
        count = sum(p.numel() for p in trained.model.parameters())
        print(
            f"{trained.name:32}{tokens / medians[-1]:17,.0f}{tokens / minima[-1]:9,.0f}{count:12,}"
            f"   {losses[0]:.3f} {losses[-1]:.3f}"
        )
    print(
        f"the fastest peer takes {min(medians[1:]) / medians[0]:.2f} times as long by medians, "
        f"{min(minima[1:]) / minima[0]:.2f} by minima (goal with AMX: 4)"
    )


def bench_peak_memory_of_small_training():
    ours = Ours()
    token_ids = torch.randint(0, 4096, (16, 257))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        step_seconds(ours, token_ids)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"\npeak resident memory of the process {peak / 1024:,.0f} MiB, {before / 1024:,.0f} MiB before these steps; "
        "run this bench alone for the peak of `small` training"
    )
