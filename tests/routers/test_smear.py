"""SMEAR: one merged expert per sequence, from all of it or from its beginning."""

import pytest
import torch
from torch import Tensor

from workbench.core import RouteContext, Spec
from workbench.experts.mlp import MLPExperts
from workbench.model.config import ModelConfig
from workbench.model.generate import Sampling, generate
from workbench.model.transformer import Transformer, initialise
from workbench.routers.smear import SmearRouter


def two(*lengths: int) -> RouteContext:
    """Sequences of these lengths, with attention by the plainest formula."""
    sequence = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    position = torch.cat([torch.arange(n) for n in lengths])

    def attend(values: Tensor, query: Tensor, key: Tensor, **_: object) -> tuple[Tensor, Tensor]:
        sees = (sequence.unsqueeze(1) == sequence) & (position.unsqueeze(1) >= position)
        score = torch.einsum("thq,uhq->htu", query, key).masked_fill(~sees, -torch.inf)
        mixed = torch.einsum("htu,um->thm", score.softmax(-1), values)
        return mixed, torch.cat((values, key.flatten(1)), dim=-1)

    return RouteContext(sequence=sequence, position=position, attention=attend)


def body_of(num_experts: int, width: int) -> MLPExperts:
    body = MLPExperts(width, num_experts, hidden=5)
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter)
    return body


def merged(body: MLPExperts, share: Tensor, row: Tensor) -> Tensor:
    """One row through the expert whose parameters are averaged by these shares."""
    gate, up = (torch.einsum("e,efd->fd", share, body.gate_up) @ row).chunk(2)
    return torch.einsum("e,edf->df", share, body.down) @ (torch.nn.functional.silu(gate) * up)


def test_parameters_are_averaged_by_the_mean_probabilities_of_the_sequence(with_logits, assert_close):
    router, body, x, context = with_logits(SmearRouter, 4), body_of(4, 4), torch.randn(9, 4), two(5, 4)
    out = router(x, context).apply(x, body, context)
    expected = []
    for part in x.split([5, 4]):
        share = part.softmax(-1).mean(0)
        expected += [merged(body, share, row) for row in part]
    assert_close(out, torch.stack(expected))


def test_every_token_moves_the_gate_and_every_expert_learns(with_logits):
    router, body, x = with_logits(SmearRouter, 4), body_of(4, 4), torch.randn(9, 4).requires_grad_()
    routing = router(x, two(9))
    routing.mixture[0, 0].backward(retain_graph=True)
    assert (x.grad.abs().sum(-1) > 1e-4).all()
    routing.apply(x, body, RouteContext()).square().sum().backward()
    assert all(expert.abs().max() > 0 for p in body.parameters() for expert in p.grad)


@pytest.mark.parametrize("prefix", [1, 3])
def test_with_a_prefix_a_token_has_the_mean_of_its_past_as_far_as_the_prefix_goes(with_logits, assert_close, prefix):
    router, body, x, context = with_logits(SmearRouter, 4, prefix=prefix), body_of(4, 4), torch.randn(9, 4), two(5, 4)
    routing = router(x, context)
    out, expected = routing.apply(x, body, context), []
    for part in x.split([5, 4]):
        for t in range(len(part)):
            expected.append(merged(body, part[: min(t + 1, prefix)].softmax(-1).mean(0), part[t]))
    assert_close(out, torch.stack(expected))
    # one average of parameters for each token of a prefix, the last of which serves all later ones.
    assert len(routing.mixture) == 2 * prefix


def model_of(prefix: int) -> Transformer:
    sizes = {"width": 32, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8}
    router = Spec("smear", {"prefix": prefix})
    model = initialise(
        Transformer(ModelConfig(vocab_size=50, num_experts=4, expert_width=24, router=router, **sizes)), 0
    )
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model


@pytest.mark.parametrize("prefix", [1, 3])
def test_with_a_prefix_later_tokens_change_nothing_before_them(assert_close, prefix):
    model, text = model_of(prefix), torch.randint(50, (2, 12))
    changed = text.clone()
    changed[:, 7:] = (changed[:, 7:] + 5) % 50
    assert_close(model(text).logits[:, :7], model(changed).logits[:, :7])
    for length in (1, 2, 5):
        assert_close(model(text[:, :length]).logits, model(text).logits[:, :length])
    whole = model_of(0)
    assert (whole(text).logits[:, :7] - whole(changed).logits[:, :7]).abs().max() > 1e-2


@pytest.mark.parametrize("prefix", [1, 3])
def test_with_a_prefix_a_text_decodes_with_a_cache_as_without(prefix):
    model, sampling = model_of(prefix), Sampling(max_new_tokens=6, temperature=0.0)
    texts = [[3, 14, 15, 9, 26], [8, 9], [32]]
    steps = list(generate(model, texts, sampling))
    new = torch.stack([step.token_ids for step in steps], dim=1)
    for row, text in enumerate(texts):
        whole = model(torch.tensor([[*text, *new[row].tolist()]])).logits[0]
        for index, step in enumerate(steps):
            torch.testing.assert_close(step.output.logits[row, -1], whole[len(text) - 1 + index], rtol=1e-4, atol=1e-4)


def test_it_says_which_form_looks_ahead():
    assert (SmearRouter(8, 4).causal, SmearRouter(8, 4).causal_in_training) == (False, False)
    assert (SmearRouter(8, 4, prefix=1).causal, SmearRouter(8, 4, prefix=1).causal_in_training) == (True, True)


def test_a_prefix_is_refused_where_tokens_have_no_place():
    with pytest.raises(ValueError) as error:
        SmearRouter(8, 4, prefix=1)(torch.randn(3, 8), RouteContext())
    assert str(error.value) == (
        "smear with a prefix reads the places of tokens, and these rows have none (slots, received rows); use prefix=0"
    )


def test_a_negative_prefix_is_refused():
    with pytest.raises(ValueError, match=r"^prefix must be at least 0, got -1$"):
        SmearRouter(8, 4, prefix=-1)
