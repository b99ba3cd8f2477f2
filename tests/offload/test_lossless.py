"""An offloaded model computes what the resident one does, bit for bit, and every byte is in the ledger."""

import pytest
import torch

from workbench.core import Spec
from workbench.offload.policies import POLICIES

ROUTERS = [
    Spec("top_k", {"top_k": 2}),
    Spec("top_k", {"top_k": 3, "selection_bias": True}),
    Spec("switch"),
    Spec("gshard"),
    Spec("top_p"),
    Spec("adamoe"),
    Spec("expert_choice"),
    Spec("soft"),
    Spec("hash"),
    Spec("dense"),
    Spec("moepp"),
    Spec("blockffn"),
    Spec("base"),
]


@pytest.fixture
def check(checkpoint, opened, steps, resident, assert_same, check_books):
    """One model, one way to offload it: logits, ledger, and how much is held."""

    def run(*, prompts=None, budget="25%", policy="lru", prefetch=None, **model) -> None:
        folder = checkpoint(**model)
        prefetch = prefetch if prefetch is None else Spec(prefetch)
        offloaded = opened(folder, budget=budget, policy=Spec(policy), prefetch=prefetch)
        got = steps(offloaded.model, prompts, after=lambda done, step: offloaded.events_of(done, step))
        assert_same(got, resident(folder, prompts))
        assert offloaded.engine.ledger.misses > 0
        check_books(offloaded.engine)

    return run


def test_every_policy_is_lossless(check, policy_name):
    check(policy=policy_name, prompts=[[5, 6, 7]])


def test_every_prefetcher_is_lossless(check, prefetcher_name):
    check(prefetch=prefetcher_name, budget="40%")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("budget", ["40%", "60%", "101%"])
@pytest.mark.parametrize("count", [1, 3])
def test_every_budget_batch_and_dtype_is_lossless(check, prompts, budget, count, dtype):
    check(budget=budget, prompts=prompts[:count], dtype=dtype)


@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_every_router_is_lossless(check, router):
    check(router=router, budget="50%", prefetch="markov")


@pytest.mark.parametrize(
    "changes",
    [
        {"shared_width": 24, "shared_gate": True, "tie_embeddings": False},
        {"iterations": 2, "wiring": "chain"},
        {"expert_width": 20, "num_experts": 7},
    ],
    ids=["shared", "chain", "unaligned"],
)
def test_every_layout_is_lossless(check, changes):
    check(budget="60%", prefetch="next_layer", **changes)


def test_experts_that_are_merged_are_refused_at_the_first_token(checkpoint, opened, steps):
    offloaded = opened(checkpoint(router=Spec("smear")), budget="50%")
    with pytest.raises(ValueError, match=r"offloaded experts run one by one, and this router asks for 1 merged ones"):
        steps(offloaded.model)


def test_a_wrong_expert_would_show(checkpoint, opened, steps, resident, assert_same):
    folder = checkpoint()
    offloaded = opened(folder, budget="50%")
    slots = offloaded.engine.pool.tensors[0]
    with pytest.raises(AssertionError):
        assert_same(steps(offloaded.model, after=lambda done, step: slots[0].mul_(1.01)), resident(folder))


@pytest.mark.slow
@pytest.mark.parametrize("budget", [3 * 24 * 1024, "25%", "50%", "100%"])
def test_every_policy_and_prefetcher_is_lossless(check, prompts, policy_name, prefetcher_name, budget):
    # a budget of two experts would leave no room for keys and values.
    for dtype in (torch.float32, torch.bfloat16):
        for count in (1, 3):
            check(policy=policy_name, prefetch=prefetcher_name, budget=budget, dtype=dtype, prompts=prompts[:count])


@pytest.mark.slow
@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_every_router_with_every_prefetcher_is_lossless(check, prompts, router, prefetcher_name):
    for count in (1, 3):
        check(router=router, prefetch=prefetcher_name, budget="50%", prompts=prompts[:count], expert_width=20)


def test_all_policies_are_known(policy_name):
    assert policy_name in POLICIES.names()
