"""Every router inside a model: padding, recomputation, autocast, and decoding with a cache."""

from collections.abc import Mapping

import pytest
import torch

from workbench.core import Card, RouteContext, Router, SparseRouting
from workbench.model.generate import Sampling, generate
from workbench.model.transformer import Transformer

TEXTS = ([3, 14, 15, 9, 26, 5, 35], [8, 9, 7, 9], [32])


def padded(texts, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of texts, filled up on one side with a token that exists."""
    longest = max(len(text) for text in texts)
    token_ids, mask = torch.full((len(texts), longest), 7), torch.zeros(len(texts), longest, dtype=torch.bool)
    for row, text in enumerate(texts):
        place = slice(longest - len(text), longest) if side == "left" else slice(0, len(text))
        token_ids[row, place], mask[row, place] = torch.tensor(text), True
    return token_ids, mask


@torch.no_grad()
def seen(model: Transformer, stage, texts, side: str = "left", phase: str = "prefill"):
    """Logits of all real tokens, text after text, and the decisions of every layer."""
    token_ids, mask = padded(texts, side)
    output = model(token_ids, mask=mask, context=RouteContext(phase=phase))
    assert torch.equal(output.logits[~mask], torch.zeros_like(output.logits[~mask]))
    return output.logits[mask], [stage.decision(site.routing) for site in output.sites]


def check_padding(cls: type[Router], stage, close: Mapping[str, float]) -> None:
    """Where the padding is changes nothing; a causal router sees a text as if it were alone."""
    model = stage.model_of(cls)
    for phase in ("train", "prefill"):
        left, right = (seen(model, stage, TEXTS, side, phase) for side in ("left", "right"))
        torch.testing.assert_close(left[0], right[0], **close)
        for one, other in zip(left[1], right[1], strict=True):
            stage.assert_same(one, other, close)
    start = 0
    for text in TEXTS if model.is_causal else ():
        logits, decisions = seen(model, stage, [text])
        place = slice(start, start + len(text))
        torch.testing.assert_close(left[0][place], logits, **close)
        for whole, alone in zip(left[1], decisions, strict=True):
            stage.assert_same(whole.at(place), alone, close)
        start += len(text)


def gradients(model: Transformer, recompute: bool) -> dict[str, torch.Tensor | None]:
    """Gradients of a training step, in which every layer's probabilities have a part too."""
    token_ids, mask = padded(TEXTS, "right")
    context = RouteContext(phase="train", step=4, num_steps=100, seed=1)
    output = model(token_ids, mask=mask, context=context, recompute=recompute)
    loss = output.logits[mask].square().mean()
    for site in output.sites:
        loss = loss + (0 if site.routing.prob is None else site.routing.prob.square().sum())
    model.zero_grad()
    loss.backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def check_recomputation(cls: type[Router], stage) -> None:
    """Making activations again in backward gives the same gradients bit by bit, noise and capacity included."""
    model = stage.model_of(cls)
    plain, again = gradients(model, recompute=False), gradients(model, recompute=True)
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        assert (gradient is None) == (again[name] is None), name
        assert gradient is None or torch.equal(gradient, again[name]), name


def check_autocast(cls: type[Router], stage) -> None:
    """Under bfloat16 the logits stay near those of float32, weights are float32, and gradients are finite."""
    model, (token_ids, mask) = stage.model_of(cls), padded(TEXTS, "right")
    context = RouteContext(phase="train")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(token_ids, mask=mask, context=context)
    assert all(site.routing.assignments().weight.dtype == torch.float32 for site in output.sites)
    output.logits[mask].float().square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    logits = output.logits[mask].float()
    exact = model(token_ids, mask=mask, context=context).logits[mask]
    # a near tie may send a token elsewhere, so the texts are compared as a whole and not number by number.
    assert torch.nn.functional.cosine_similarity(logits.flatten(), exact.flatten(), dim=0) > 0.98


def check_decoding(cls: type[Router], stage, close: Mapping[str, float]) -> None:
    """Token by token with a cache: the logits and decisions of the whole text at once."""
    model, sampling = stage.model_of(cls), Sampling(max_new_tokens=6, temperature=0.0)
    steps = list(generate(model, TEXTS, sampling))
    new = torch.stack([step.token_ids for step in steps], dim=1).tolist()
    assert [step.phase for step in steps] == ["prefill"] + ["decode"] * 5
    for row, (text, tail) in enumerate(zip(TEXTS, new, strict=True)):
        logits, decisions = seen(model, stage, [[*text, *tail]])
        for index, step in enumerate(steps):
            place = len(text) - 1 + index
            torch.testing.assert_close(step.output.logits[row, -1], logits[place], **close)
            if step.phase == "decode":
                for site, whole in zip(step.output.sites, decisions, strict=True):
                    one = stage.decision(site.routing).at(slice(row, row + 1))
                    stage.assert_same(one, whole.at(slice(place, place + 1)), close)


def check_one_by_one(cls: type[Router], stage) -> None:
    """A single text decodes to the same tokens with a cache and without one."""
    model, sampling = stage.model_of(cls), Sampling(max_new_tokens=6, temperature=0.0)
    fast, slow = (
        [int(step.token_ids) for step in generate(model, TEXTS[:1], sampling, recompute=again)]
        for again in (False, True)
    )
    assert fast == slow


def check_refusal(cls: type[Router], stage) -> None:
    """A router that sees later tokens cannot decode with a cache, says so at once, and can without one."""
    model, sampling = stage.model_of(cls), Sampling(max_new_tokens=3, temperature=0.0)
    name = model.config.router.name
    with pytest.raises(ValueError) as error:
        generate(model, TEXTS, sampling)
    assert str(error.value) == (
        f"router {name!r} decides with later tokens in view, so it cannot generate token by token; swap to a causal "
        "router such as top_k, or pass recompute=True to route the whole prefix again for every token (slow)"
    )
    steps = list(generate(model, TEXTS[:1], sampling, recompute=True))
    tail = [int(step.token_ids) for step in steps]
    logits, _ = seen(model, stage, [[*TEXTS[0], *tail[:2]]])
    assert tail[2] == int(logits[-1].argmax())


def check_generation(cls: type[Router], stage, close: Mapping[str, float]) -> None:
    """Decoding, as far as the router declares that it may be decoded."""
    if stage.model_of(cls).is_causal:
        check_decoding(cls, stage, close)
        check_one_by_one(cls, stage)
    else:
        check_refusal(cls, stage)


def test_padding_changes_nothing(router, stage, tolerance):
    check_padding(router, stage, tolerance[torch.float32])


def test_recomputed_activations_give_equal_gradients(router, stage):
    check_recomputation(router, stage)


def test_a_model_under_autocast_stays_near_float32(router, stage):
    check_autocast(router, stage)


def test_decoding_with_a_cache_is_the_full_forward_or_is_refused(router, stage, tolerance):
    check_generation(router, stage, tolerance[torch.float32])


class Top1(Router):
    """Top 1 over a gate; subclasses plant what else it looks at."""

    card = Card("planted")
    causal = causal_in_training = True

    def __init__(self, width: int, num_experts: int, *, layer: int = 0):
        super().__init__(width, num_experts, layer=layer)
        self.gate = torch.nn.Linear(width, num_experts, bias=False)
        self.calls = 0

    def forward(self, x, context):
        prob = (self.gate(x) + self.extra(x, context)).softmax(-1)
        weight, expert = prob.max(-1, keepdim=True)
        return SparseRouting.from_topk(expert, weight, num_experts=self.num_experts, prob=prob)


class SeesTheBatch(Top1):
    def extra(self, x, context):
        return self.gate(x.mean(0)) * -3


class Counts(Top1):
    def extra(self, x, context):
        self.calls += 1
        return context.noise((len(x), self.num_experts), self.calls)


class SeesTheSizeOfTheBatch(Top1):
    def extra(self, x, context):
        return torch.linspace(0, 1, self.num_experts) * (len(x) % 4)


class KnowsDecoding(Top1):
    def extra(self, x, context):
        return torch.linspace(0, 1, self.num_experts) * (context.phase == "decode")


class Halves(Top1):
    def extra(self, x, context):
        return torch.linspace(-400, 400, self.num_experts) * (x.sum() * 0 + torch.is_autocast_enabled("cpu"))


class WritesTheContext(Top1):
    def extra(self, x, context):
        return (context.token_id * torch.arange(len(x)) % 7).unsqueeze(-1) * torch.linspace(0, 1, self.num_experts)


class SaysItIsNot(Top1):
    causal = False

    def extra(self, x, context):
        return 0.0


@pytest.mark.parametrize("fault", [SeesTheBatch, SeesTheSizeOfTheBatch, WritesTheContext], ids=lambda cls: cls.__name__)
def test_a_dependence_on_the_batch_is_found(fault, stage, plant, tolerance):
    with pytest.raises(AssertionError):
        check_padding(plant(fault), stage, tolerance[torch.float32])


@pytest.mark.parametrize("fault", [SeesTheBatch, KnowsDecoding, WritesTheContext], ids=lambda cls: cls.__name__)
def test_decoding_that_differs_is_found(fault, stage, plant, tolerance):
    with pytest.raises(AssertionError):
        check_generation(plant(fault), stage, tolerance[torch.float32])


def test_noise_that_is_not_the_same_again_is_found(stage, plant):
    with pytest.raises(AssertionError):
        check_recomputation(plant(Counts), stage)


def test_another_router_under_autocast_is_found(stage, plant):
    with pytest.raises(AssertionError):
        check_autocast(plant(Halves), stage)


def test_a_planted_router_that_is_not_causal_is_refused(stage, plant, tolerance):
    check_generation(plant(SaysItIsNot), stage, tolerance[torch.float32])
