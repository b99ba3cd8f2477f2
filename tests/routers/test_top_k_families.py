"""Top-k against the routers of transformers, on the same weights and tokens."""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.top_k import TopKRouter

os.environ.setdefault("HF_HUB_OFFLINE", "1")

WIDTH, EXPERTS = 32, 16
GROUPS = {"n_group": 4, "topk_group": 2}

# Family: module, configuration, router, its options, and our arguments for the same thing.
FAMILIES: dict[str, tuple[str, str, str, dict[str, Any], dict[str, Any]]] = {
    "mixtral": ("mixtral", "MixtralConfig", "MixtralTopKRouter", {"num_local_experts": EXPERTS}, {}),
    "olmoe": ("olmoe", "OlmoeConfig", "OlmoeTopKRouter", {"num_experts": EXPERTS}, {"renormalise": False}),
    "olmoe_normalised": (
        "olmoe",
        "OlmoeConfig",
        "OlmoeTopKRouter",
        {"num_experts": EXPERTS, "norm_topk_prob": True},
        {},
    ),
    "qwen2_moe": (
        "qwen2_moe",
        "Qwen2MoeConfig",
        "Qwen2MoeTopKRouter",
        {"num_experts": EXPERTS},
        {"renormalise": False},
    ),
    "qwen3_moe": (
        "qwen3_moe",
        "Qwen3MoeConfig",
        "Qwen3MoeTopKRouter",
        {"num_experts": EXPERTS, "norm_topk_prob": True},
        {},
    ),
    "deepseek_v2": (
        "deepseek_v2",
        "DeepseekV2Config",
        "DeepseekV2TopkRouter",
        {**GROUPS, "n_routed_experts": EXPERTS, "topk_method": "group_limited_greedy", "routed_scaling_factor": 16.0},
        {"renormalise": False, "groups": 4, "groups_kept": 2, "group_value": "max", "scale": 16.0},
    ),
    "deepseek_v3": (
        "deepseek_v3",
        "DeepseekV3Config",
        "DeepseekV3TopkRouter",
        {**GROUPS, "n_routed_experts": EXPERTS, "routed_scaling_factor": 2.5, "norm_topk_prob": True},
        {"score": "sigmoid", "selection_bias": True, "groups": 4, "groups_kept": 2, "scale": 2.5},
    ),
}


@pytest.fixture(params=FAMILIES)
def pair(request) -> Callable[[int], tuple[torch.nn.Module, TopKRouter]]:
    """The router of transformers and ours, with the same gate."""
    module, config, router, options, arguments = FAMILIES[request.param]

    def build(top_k: int) -> tuple[torch.nn.Module, TopKRouter]:
        settings = getattr(import_module(f"transformers.models.{module}.configuration_{module}"), config)
        sizes = {"hidden_size": WIDTH, "num_experts_per_tok": top_k}
        theirs = getattr(import_module(f"transformers.models.{module}.modeling_{module}"), router)(
            settings(**sizes, **options)
        )
        ours = TopKRouter(WIDTH, EXPERTS, top_k=top_k, **arguments)
        torch.nn.init.normal_(theirs.weight, std=0.5)
        ours.gate.weight.data = theirs.weight.data.clone()
        if ours.selection_bias is not None:
            # below zero, so that a mask of 0 would choose masked experts.
            theirs.e_score_correction_bias.copy_(-1 - torch.rand(EXPERTS) / 10)
            ours.selection_bias.copy_(theirs.e_score_correction_bias)
        return theirs.eval(), ours

    return build


@pytest.mark.parametrize("top_k", [1, 2, 6])
def test_experts_and_weights_are_those_of_transformers(pair, dense_weights, assert_close, top_k):
    theirs, ours = pair(top_k)
    x = torch.randn(256, WIDTH)
    logits, weights, experts = theirs(x)
    routing = ours(x, RouteContext(phase="prefill"))
    assert_close(routing.logit, logits)
    assert torch.equal(routing.expert.sort(-1).values, experts.sort(-1).values)
    assert_close(dense_weights(routing), torch.zeros(256, EXPERTS).scatter(1, experts, weights))


def test_the_gradient_of_the_gate_is_that_of_transformers(pair, assert_close):
    theirs, ours = pair(2)
    x, upstream = torch.randn(64, WIDTH), torch.randn(64, EXPERTS)
    _, weights, experts = theirs(x)
    (torch.zeros(64, EXPERTS).scatter(1, experts, weights) * upstream).sum().backward()
    routing = ours(x, RouteContext(phase="train"))
    (routing.weight * upstream.gather(1, routing.expert)).sum().backward()
    scale = float(theirs.weight.grad.abs().max())
    assert_close(ours.gate.weight.grad / scale, theirs.weight.grad / scale)
