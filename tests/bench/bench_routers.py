"""What a router costs in a training step at `small`, with the same experts computing the same rows for all.

Every router decides as it does, and its decision is then replaced by one fixed plan of two even choices per
token that carries its gradient, so only the router's own work differs. Steps are interleaved with those of
`top_k`. Goals: at most 1.10 for token choice, 1.30 for assignment and hierarchy.
"""

import statistics
import time

import torch

from workbench.core.context import RouteContext
from workbench.core.router import Router
from workbench.core.sparse import SparseRouting
from workbench.core.spec import Spec
from workbench.model.config import preset
from workbench.model.transformer import Transformer, initialise
from workbench.routers import ROUTERS
from workbench.train.loss import auxiliary, token_losses

STEPS = 3
TOKENS = (16, 256)
ASSIGNMENT = {"base", "sinkhorn", "sparse_ot", "expert_choice", "smile", "locmoe"}
# their decision is no plan of rows, so there is nothing to hold equal.
MIXTURES = {"soft", "smear"}


class Pinned(Router):
    """A router whose work is done and whose decision is replaced by a fixed plan."""

    card = ROUTERS.get("top_k").card
    causal = causal_in_training = True

    def __init__(self, inner: Router):
        super().__init__(inner.width, inner.num_experts, layer=inner.layer)
        self.inner = inner

    @property
    def loss_weights(self):
        return self.inner.loss_weights

    def shared_part(self):
        return self.inner.shared_part()

    def forward(self, x, context):
        asked = self.inner(x, context)
        first = torch.arange(len(x)) % self.num_experts
        expert = torch.stack((first, (first + 1) % self.num_experts), dim=-1)
        weight = torch.full(expert.shape, 0.5) + 0 * asked.assignments().weight.sum()
        self.asked = asked
        return SparseRouting(
            expert=expert,
            weight=weight,
            num_experts=self.num_experts,
            prob=asked.prob,
            logit=asked.logit,
            carry=asked.carry,
        )

    def losses(self, routing, load, token_loss, context):
        demand = self.asked.demand.float()
        return self.inner.losses(self.asked, demand / demand.sum().clamp_min(1), token_loss, context)


def model_with(name: str):
    spec = Spec(name)
    model = Transformer(preset("small").with_router(spec))
    model = initialise(model, 0)
    for layer in model.moe_layers():
        plain = Transformer(preset("small")).blocks[0].feed_forward
        layer.router = Pinned(layer.router)
        # a body that a router requires is replaced by the model's own, so that all compute the same.
        layer.experts, layer.extra_experts = plain.experts, torch.nn.ModuleList()
        for parameter in layer.experts.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)


def step_seconds(model, optimizer, token_ids, step: int) -> float:
    began = time.perf_counter()
    optimizer.zero_grad()
    output = model(token_ids[:, :-1], context=RouteContext(phase="train", step=step, num_steps=100))
    per_token = token_losses(output.logits, token_ids[:, 1:])
    aux = auxiliary(output.sites, model.routers_of(output.sites), per_token, output.context)
    (per_token.mean() + aux.total).backward()
    optimizer.step()
    return time.perf_counter() - began


def bench_every_router_against_top_k():
    token_ids = torch.randint(0, 4096, (TOKENS[0], TOKENS[1] + 1), generator=torch.Generator().manual_seed(0))
    base = model_with("top_k")
    step_seconds(*base, token_ids, 0)
    print(
        f"\nsmall, {TOKENS[0]} x {TOKENS[1]} tokens, float32, cpu, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {STEPS} interleaved steps after one warm-up, seed 0; rows pinned equal"
    )
    print(f"{'router':20}{'ratio of medians':>18}{'of minima':>11}{'us per token and layer':>24}   goal")
    for name in ROUTERS.names():
        if name in MIXTURES:
            print(f"{name:20}{'a mixture: no rows to hold equal':>40}")
            continue
        contender = model_with(name)
        step_seconds(*contender, token_ids, 0)
        own, theirs = [], []
        for step in range(1, STEPS + 1):
            theirs.append(step_seconds(*base, token_ids, step))
            own.append(step_seconds(*contender, token_ids, step))
        ratio, least = statistics.median(own) / statistics.median(theirs), min(own) / min(theirs)
        cost = (min(own) - min(theirs)) / (TOKENS[0] * TOKENS[1] * 4) * 1e6
        goal = 1.30 if name in ASSIGNMENT else 1.10
        print(f"{name:20}{ratio:>18.2f}{least:>11.2f}{cost:>24.2f}   {goal:.2f}{'' if least <= goal else '  above'}")


def bench_a_swap(tmp_path_factory=None):
    from workbench.session import Session

    session = Session(model="small", batch_size=16, sequence_length=256)
    stalls = {}
    for name in ("switch", "loss_free", "remoe", "top_k", "hash", "switch", "loss_free", "remoe", "top_k", "hash"):
        for _ in session.train(1, progress=False):
            pass
        stalls.setdefault(name, []).append(round(session.swap_router(name).stall_seconds * 1000))
    print(f"\na swap at small, a step between two, stalls training [ms] (goal: under 300): {stalls}")


def bench_zero_computation_experts():
    token_ids = torch.randint(0, 4096, (TOKENS[0], TOKENS[1] + 1), generator=torch.Generator().manual_seed(0))
    found = {}
    contenders = {}
    for name in ("top_k", "moepp"):
        model = initialise(Transformer(preset("small").with_router(Spec(name))), 0)
        contenders[name] = (model, torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True))
        found[name] = []
        step_seconds(*contenders[name], token_ids, 0)
    for step in range(1, STEPS + 1):
        for name, contender in contenders.items():
            found[name].append(step_seconds(*contender, token_ids, step))
    ratio = statistics.median(found["moepp"]) / statistics.median(found["top_k"])
    print(f"\nzero-computation experts: a step of moepp takes {ratio:.2f} of one of top_k (goal: below 1)")
