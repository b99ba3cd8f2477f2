"""The same numbers as transformers' eager implementation, on checkpoints that transformers writes."""

from copy import deepcopy

import pytest
import torch

from workbench.model.generate import Sampling, generate
from workbench.model.weights import load

CASES = (
    "mixtral",
    "mixtral-tied",
    "olmoe",
    "olmoe-clipped",
    "qwen2",
    "qwen2-dense",
    "qwen3",
    "qwen3-dense",
)
ONE_EACH = ("mixtral", "olmoe", "qwen2", "qwen3")
NEW_TOKENS = 64


@pytest.fixture(params=CASES)
def pair(request, reference, checkpoint):
    """Our model and transformers', with the same weights."""
    return load(checkpoint(request.param)), reference(request.param)


def token_ids(*shape: int) -> torch.Tensor:
    return torch.randint(0, 97, shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_logits_agree(pair):
    ours, theirs = pair
    ids = token_ids(3, 40)
    logits, expected = ours(ids).logits, theirs(ids).logits
    # otherwise the comparison would say little: near-equal logits, or one token that always wins.
    assert expected.std() > 0.5 and expected.argmax(-1).unique().numel() > 10
    # both round, and a near-tie of gates magnifies whose luck was worse; a real difference is a thousandfold.
    exact = deepcopy(theirs).double()(ids).logits
    assert (logits - exact).norm() <= 2 * (expected - exact).norm()
    assert (logits - expected).abs().max() <= 1e-4


@torch.no_grad()
def test_every_token_goes_to_the_same_experts_with_the_same_weights(pair, assert_close):
    ours, theirs = pair
    ids = token_ids(3, 40)
    sites = ours(ids).sites
    logits = theirs(ids, output_router_logits=True).router_logits
    assert len(sites) == len(logits) == len(ours.config.moe_layers)
    for site, logit in zip(sites, logits, strict=True):
        weight, expert = logit.softmax(-1).topk(site.routing.top_k)
        if ours.config.router.args["renormalise"]:
            weight = weight / weight.sum(-1, keepdim=True)
        assert torch.equal(site.routing.expert, expert)
        assert_close(site.routing.weight, weight)
        assert expert.unique().numel() == logit.shape[-1], "the weights should send tokens to every expert"


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_batches_agree(pair, side, assert_close):
    ours, theirs = pair
    ids, lengths = token_ids(3, 20), torch.tensor([20, 7, 1])
    columns = torch.arange(20)
    mask = columns < lengths[:, None] if side == "right" else columns >= 20 - lengths[:, None]
    position = (mask.cumsum(-1) - 1).clamp_min(0)
    expected = theirs(ids, attention_mask=mask.long(), position_ids=position).logits
    logits = ours(ids, mask=mask).logits
    assert_close(logits[mask], expected[mask])
    assert torch.equal(logits[~mask], torch.zeros_like(logits[~mask]))


@torch.no_grad()
@pytest.mark.parametrize(
    "case", [case if case in ONE_EACH else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_64_greedy_tokens_of_prompts_of_unequal_length_are_equal(case, reference, checkpoint):
    ours, theirs = load(checkpoint(case)), reference(case)
    prompts = [token_ids(1, length)[0] for length in (9, 4)]
    padded = torch.stack([torch.nn.functional.pad(p, (9 - len(p), 0)) for p in prompts])
    mask = torch.stack([torch.arange(9) >= 9 - len(p) for p in prompts]).long()
    out = theirs.generate(padded, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
    expected = out[:, 9:].tolist()
    assert all(len(row) == NEW_TOKENS and len(set(row)) >= 5 for row in expected), "one repeated token proves little"
    sampling = Sampling(max_new_tokens=NEW_TOKENS, temperature=0)
    steps = generate(ours, [p.tolist() for p in prompts], sampling)
    assert torch.stack([step.token_ids for step in steps], dim=1).tolist() == expected


@torch.no_grad()
@pytest.mark.parametrize("case", ONE_EACH)
def test_bfloat16_stays_as_close_as_bfloat16_is(case, reference, checkpoint):
    ids = token_ids(1, 12)
    exact = reference(case)(ids).logits
    error = (load(checkpoint(case), dtype="bfloat16")(ids).logits.float() - exact).abs()
    theirs = (reference(case).to(torch.bfloat16)(ids).logits.float() - exact).abs()
    # near-ties may send a token elsewhere in either, so the middle of the errors is compared, not the worst.
    assert error.median() <= 1.5 * theirs.median()
