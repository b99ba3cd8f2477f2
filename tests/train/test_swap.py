"""A swap keeps the experts and their optimiser state; a swap that fails keeps everything."""

import pytest
import torch

from workbench.core import Spec
from workbench.model.transformer import Transformer, initialise
from workbench.train.config import TrainConfig
from workbench.train.optim import build_optimizer, is_of_router, named_states
from workbench.train.swap import SwapReport, exchange_routers, swap_routers

CONFIG = TrainConfig()
GATES = tuple(f"blocks.{layer}.feed_forward.router.gate.weight" for layer in range(2))


@pytest.fixture
def model(shape) -> Transformer:
    return initialise(Transformer(shape), 0)


@pytest.fixture
def optimizer(model) -> torch.optim.AdamW:
    made = build_optimizer(model, CONFIG)
    model(torch.arange(8)[None]).logits.square().sum().backward()
    made.step()
    return made


def everything(model: Transformer, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    tensors = {**model.state_dict(), **named_states(model, optimizer)}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def groups(optimizer: torch.optim.AdamW) -> list[tuple[str, list[int], float]]:
    return [(g["name"], [id(p) for p in g["params"]], g["weight_decay"]) for g in optimizer.param_groups]


def test_experts_keep_weights_and_state_and_the_gate_goes_along_with_its_own(model, optimizer, assert_same_bits):
    before = everything(model, optimizer)
    report, _ = swap_routers(model, optimizer, CONFIG, Spec("switch", {"jitter": 0.0}))
    assert_same_bits(everything(model, optimizer), before)
    assert {layer.router_name for layer in model.moe_layers()} == {"switch"}
    assert model.config.router == Spec("switch", {"jitter": 0.0})
    assert (report.carried, report.fresh, report.num_experts) == (GATES, (), 4)
    assert str(report).startswith("top_k -> switch:jitter=0.0: all 4 experts per layer kept")


def test_the_carried_gate_is_trained_on(model, optimizer):
    swap_routers(model, optimizer, CONFIG, Spec("switch"))
    before = everything(model, optimizer)
    optimizer.zero_grad()
    model(torch.arange(8)[None]).logits.square().sum().backward()
    optimizer.step()
    after = everything(model, optimizer)
    assert all(not torch.equal(after[name], before[name]) for name in GATES)
    assert all(float(after[f"{name}|step"]) == 2 for name in GATES)


def test_without_carrying_the_gate_starts_anew_without_state(model, optimizer):
    before = everything(model, optimizer)
    report, _ = swap_routers(model, optimizer, CONFIG, Spec("switch"), carry=False)
    after = everything(model, optimizer)
    assert (report.carried, report.fresh) == ((), GATES)
    assert not any(torch.equal(after[name], before[name]) for name in GATES)
    assert not any(f"{name}|exp_avg" in after for name in GATES)
    assert all(torch.equal(after[name], value) for name, value in before.items() if not is_of_router(name))


def test_a_router_without_a_gate_and_back(model, optimizer):
    swap_routers(model, optimizer, CONFIG, Spec("hash"))
    assert [name for name, *_ in groups(optimizer)] == ["matrices", "vectors"]
    report, _ = swap_routers(model, optimizer, CONFIG, Spec("top_k"))
    assert (report.carried, report.fresh) == ((), GATES)
    assert [name for name, *_ in groups(optimizer)] == ["matrices", "vectors", "router matrices"]


def test_a_learned_bias_is_carried_too(model, optimizer):
    swap_routers(model, optimizer, CONFIG, Spec("top_k", {"selection_bias": True}))
    for layer in model.moe_layers():
        layer.router.selection_bias.copy_(torch.tensor([3.0, 0, 0, 0]))
    swap_routers(model, optimizer, CONFIG, Spec("top_k", {"selection_bias": True, "score": "sigmoid"}))
    assert [layer.router.selection_bias.tolist() for layer in model.moe_layers()] == [[3.0, 0, 0, 0]] * 2


def refuse() -> None:
    raise ValueError("this router cannot work here")


@pytest.mark.parametrize(
    ("router", "options", "message"),
    [
        (Spec("swich"), {}, "did you mean 'switch'"),
        (Spec("top_k", {"topk": 2}), {}, "did you mean 'top_k'"),
        (Spec("top_k", {"top_k": 5}), {}, "between 1 and num_experts=4, got 5"),
        (Spec("top_k", {"top_k": "two"}), {}, "must be int"),
        (Spec("switch"), {"trial": refuse}, "cannot work here"),
        (Spec("hash"), {"trial": refuse, "carry": False}, "cannot work here"),
    ],
)
def test_a_failing_swap_leaves_everything_as_it_was(router, options, message, model, optimizer, assert_same_bits):
    before, grouped, config = everything(model, optimizer), groups(optimizer), model.config
    routers = [layer.router for layer in model.moe_layers()]
    with pytest.raises((ValueError, LookupError), match=message):
        swap_routers(model, optimizer, CONFIG, router, **options)
    assert_same_bits(everything(model, optimizer), before)
    assert groups(optimizer) == grouped
    assert len(optimizer.state) == len(list(model.parameters()))
    assert model.config == config
    assert [layer.router for layer in model.moe_layers()] == routers
    assert {layer.router_name for layer in model.moe_layers()} == {"top_k"}


def test_after_a_failing_swap_the_next_step_is_the_one_it_would_have_been(shape, assert_same_bits):
    ends = []
    for fails in (False, True):
        model = initialise(Transformer(shape), 0)
        optimizer = build_optimizer(model, CONFIG)
        for turn in range(2):
            optimizer.zero_grad()
            model(torch.arange(8)[None]).logits.square().sum().backward()
            optimizer.step()
            if fails and not turn:
                with pytest.raises(ValueError, match="cannot work here"):
                    swap_routers(model, optimizer, CONFIG, Spec("switch"), trial=refuse)
        ends.append(everything(model, optimizer))
    assert_same_bits(*ends)


def test_a_model_without_experts_has_no_router_to_swap(shape):
    dense = type(shape)(**{**vars(shape), "dense_layers": (0, 1), "dense_width": 8})
    model = initialise(Transformer(dense), 0)
    with pytest.raises(ValueError, match="no MoE layer, so it has no router to swap"):
        swap_routers(model, build_optimizer(model, CONFIG), CONFIG, Spec("switch"))


def test_exchanging_says_what_went_along(model):
    gate = model.state_dict()[GATES[0]].clone()
    assert exchange_routers(model, Spec("expert_choice"), 0) == (GATES, ())
    assert torch.equal(model.state_dict()[GATES[0]], gate)
    assert exchange_routers(model, Spec("random"), 0) == ((), ())


def test_the_table_of_a_deep_model_stays_short():
    many = tuple(f"blocks.{layer}.feed_forward.router.gate.weight" for layer in range(96))
    report = SwapReport(before="top_k", after="switch", carried=many, fresh=many, num_experts=64)
    assert len(report._repr_html_().encode()) < 5000
    assert "and 90 more" in report._repr_html_()
