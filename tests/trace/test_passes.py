"""What is taken from one routing, whatever made it."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from workbench.core.records import Batch, Site
from workbench.core.sparse import SparseRouting
from workbench.trace import Recorder, to_table
from workbench.trace.passes import choose, measure


@st.composite
def routings(draw):
    tokens, experts = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    prob = torch.rand(tokens, experts, generator=generator).softmax(-1)
    kind = draw(st.sampled_from(["top_k", "mask", "expert_choice"]))
    if kind == "top_k":
        weight, expert = prob.topk(draw(st.integers(1, experts)))
        keep = torch.rand(expert.shape, generator=generator) < 0.7
        return SparseRouting.from_topk(expert, weight, num_experts=experts, keep=keep, prob=prob)
    if kind == "mask":
        mask = torch.rand(tokens, experts, generator=generator) < 0.5
        return SparseRouting.from_mask(mask, prob, prob=prob)
    weight, token = prob.T.topk(draw(st.integers(1, tokens)), dim=-1)
    return SparseRouting.from_expert_choice(token, weight, num_tokens=tokens, prob=prob)


@given(routing=routings())
@settings(max_examples=12)
def test_any_sparse_routing_reads_back_equal(routing, outputs):
    batch = Batch(token_ids=torch.arange(routing.num_tokens)[None])
    recorder = Recorder()
    recorder.add(batch, outputs(batch, [routing]), phase="prefill", step=0)
    table, said = to_table(recorder.trace()), routing.assignments()
    assert table["token_id"].tolist() == said.token.tolist()
    assert table["expert"].tolist() == said.expert.tolist()
    assert table["weight"].tolist() == said.weight.tolist()
    assert table["kept"].tolist() == said.kept.tolist()


@given(routing=routings(), take=st.integers(0, 6))
@settings(max_examples=12)
def test_the_first_tokens_are_the_first_of_all(routing, take):
    site = Site(layer=0, iteration=0, module="m", router="r", routing=routing)
    some, every = choose(site, take, with_prob=True), choose(site, 99, with_prob=True)
    for name in ("expert", "weight", "kept", "prob"):
        torch.testing.assert_close(some._asdict()[name], every._asdict()[name][:take], rtol=0, atol=0)


@given(routing=routings())
@settings(max_examples=12)
def test_sums_are_those_of_the_assignments(routing):
    sums = measure(Site(layer=3, iteration=0, module="m", router="r", routing=routing))
    said = routing.assignments()
    assert sums.layer == 3
    assert sums.demand.tolist() == torch.bincount(said.expert, minlength=routing.num_experts).tolist()
    assert sums.kept.tolist() == torch.bincount(said.expert[said.kept], minlength=routing.num_experts).tolist()
    wanted = torch.distributions.Categorical(routing.prob).entropy().sum()
    torch.testing.assert_close(sums.entropy[0], wanted, rtol=1e-5, atol=1e-5)


def test_a_part_does_not_hold_the_whole_in_memory(forward):
    site = forward(columns=100)[1].sites[0]
    part = choose(site, 5, with_prob=False)
    assert part.expert.untyped_storage().nbytes() == 5 * 2 * 8
    assert not part.weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_scores_are_summed_in_float32(dtype):
    prob = torch.full((1000, 4), 0.25, dtype=dtype)
    routing = SparseRouting.from_topk(torch.zeros(1000, 1).long(), torch.ones(1000, 1), num_experts=4, prob=prob)
    sums = measure(Site(layer=0, iteration=0, module="m", router="r", routing=routing))
    assert sums.prob.tolist() == [250.0] * 4
