"""FLOPs against torch's own counter of the products that really run."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from workbench_kernels.flops import register_flop_formulas

from workbench.model.flops import flops_per_token


@pytest.mark.parametrize("sizes", [{}, {"tie_embeddings": False}, {"shared_width": 16}])
def test_they_are_those_that_torch_counts_up_to_norms_and_attention(make_model, sizes):
    model = make_model(**sizes)
    config, tokens = model.config, torch.arange(32).view(1, 32)
    register_flop_formulas()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tokens)
    # torch counts attention over the whole square; half of it is causal.
    attention = 2 * 2 * 32 * config.num_heads * config.head_dim * config.num_layers
    counted = counter.get_total_flops() / 32
    found = flops_per_token(model, choices_per_token=2, context=32)
    vectors = 2 * sum(p.numel() for p in model.parameters() if p.dim() < 2)
    is_attention_counted = any("attention" in str(op) for op in counter.get_flop_counts()["Global"])
    assert found - vectors + (attention / 2 if is_attention_counted else -attention / 2) == pytest.approx(counted)


def test_every_further_choice_costs_one_expert(make_model):
    model = make_model()
    one, two = (flops_per_token(model, choices_per_token=k, context=8) for k in (1, 2))
    assert two - one == 2 * model.config.num_layers * 3 * model.config.width * model.config.expert_width
