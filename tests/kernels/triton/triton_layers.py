"""Layers of every awkward routing, and the whole engine on them, on a CPU by Triton's interpreter or on a GPU.

Every operation returns numbers alone: relative errors against float64, and truths that must be 1.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from workbench_kernels.plan import RoutingPlan
from workbench_kernels.reference import moe_mlp_ref, plan_ref
from workbench_kernels.triton import engine

SIZES = {"small": (40, 24), "odd": (33, 19), "large": (264, 200)}
ALL = (True, True, True, True)


def ids_of(case: str) -> tuple[Tensor, int]:
    """The chosen experts of a case, and how many experts there are."""
    generator = torch.Generator().manual_seed(5)

    def ranked(tokens: int, experts: int, top_k: int) -> Tensor:
        return torch.rand(tokens, experts, generator=generator).argsort(-1)[:, :top_k]

    def drawn(tokens: int, top_k: int, low: int, high: int) -> Tensor:
        return torch.randint(low, high, (tokens, top_k), generator=generator)

    made = {
        "ragged": lambda: (ranked(21, 4, 2), 4),
        "an_expert_without_rows": lambda: (torch.where(ranked(9, 5, 2) == 2, 0, 1), 4),
        "all_in_one_expert": lambda: (torch.full((37, 1), 2), 3),
        "one_choice": lambda: (ranked(9, 3, 1), 3),
        "all_experts": lambda: (ranked(3, 9, 9), 9),
        "no_tokens": lambda: (torch.zeros(0, 2, dtype=torch.long), 3),
        "one_token": lambda: (torch.tensor([[2, 0]]), 3),
        "no_choices": lambda: (torch.zeros(3, 0, dtype=torch.long), 3),
        "foreign_ids": lambda: (drawn(11, 3, -2, 7), 4),
        "all_absent": lambda: (torch.full((3, 2), 9), 3),
        "the_same_expert_twice": lambda: (torch.tensor([[1, 1], [0, 1], [2, 2]]), 3),
        "more_experts_than_are_merged": lambda: (ranked(5, 130, 2), 130),
        "many": lambda: (ranked(1024, 16, 4), 16),
        "many_skewed": lambda: ((drawn(1500, 2, 0, 70).float().square() / 40).long(), 128),
    }
    ids, num_experts = made[case]()
    return ids.contiguous(), num_experts


def error(actual: Tensor | None, expected: Tensor) -> float:
    """Relative Frobenius error; of a zero, infinite unless it is met exactly."""
    assert actual is not None and actual.shape == expected.shape
    off, size = (actual.cpu().double() - expected.cpu()).norm().item(), expected.norm().item()
    return off / size if size else (0.0 if off == 0 else float("inf"))


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that nobody has written holds NaN, and integers that point far away."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


class Layer:
    """Inputs of size 1 for one case; tokens without a row are NaN, and so are the weights of absent slots."""

    def __init__(self, case: str, dtype: str, device: str, size: str = "small"):
        generator = torch.Generator().manual_seed(11)
        kind = getattr(torch, dtype)

        def normal(*shape: int, fan_in: int = 1) -> Tensor:
            return (torch.randn(shape, generator=generator) / fan_in**0.5).to(kind)

        self.ids, self.num_experts = ids_of(case)
        (tokens, top_k), (width, features) = self.ids.shape, SIZES[size]
        cpu_plan = plan_ref(self.ids, self.num_experts)
        self.plan = RoutingPlan(*(part.to(device) for part in (cpu_plan.rows, cpu_plan.row_of, cpu_plan.offsets)))
        self.num_used = int(cpu_plan.offsets[-1])
        is_absent = cpu_plan.row_of < 0
        self.clean = (
            normal(tokens, width),
            torch.rand(tokens, top_k, generator=generator).masked_fill(is_absent, 0),
            normal(self.num_experts, 2 * features, width, fan_in=width),
            normal(self.num_experts, width, features, fan_in=features),
        )
        self.clean_grad = normal(tokens, width)
        has_no_row = is_absent.all(1, keepdim=True)
        x, weight, *matrices = self.clean
        dirty = (x.masked_fill(has_no_row, torch.nan), weight.masked_fill(is_absent, torch.nan), *matrices)
        self.inputs = tuple(tensor.to(device) for tensor in dirty)
        self.grad = self.clean_grad.masked_fill(has_no_row, torch.nan).to(device)

    def expected(self, activation: str) -> tuple[Tensor, ...]:
        """Output and the four gradients in float64."""
        leaves = [tensor.double().requires_grad_() for tensor in self.clean]
        out = moe_mlp_ref(leaves[0], self.ids, *leaves[1:], activation=activation)
        if not out.requires_grad:
            return out, *(torch.zeros_like(leaf) for leaf in leaves)
        grads = torch.autograd.grad(out, leaves, self.clean_grad.double(), allow_unused=True, materialize_grads=True)
        return out.detach(), *grads


NAMES = ("out", "x", "weight", "gate_up", "down")


def run_layer(layer: Layer, activation: str, keeps_hidden: bool) -> tuple[Tensor | None, ...]:
    """Output and the four gradients by the engine, on poisoned memory."""
    with poisoned():
        out, hidden = engine.forward(*layer.inputs, layer.plan, activation=activation, keeps_hidden=keeps_hidden)
        grads = engine.backward(
            layer.grad, *layer.inputs, hidden, layer.plan, activation=activation, needs=ALL, into=None
        )
    return out, *grads


def layer_errors(
    case: str, dtype: str, device: str, size: str = "small", activation: str = "silu", keeps_hidden: bool = True
) -> dict[str, float]:
    layer = Layer(case, dtype, device, size)
    got = run_layer(layer, activation, keeps_hidden)
    return {n: error(g, e) for n, g, e in zip(NAMES, got, layer.expected(activation), strict=True)}


def layer_twice(case: str, dtype: str, device: str, size: str = "small") -> dict[str, float]:
    """Two runs, and a run that makes the pre-activations again, are equal bit for bit."""
    layer = Layer(case, dtype, device, size)
    first, second, third = (run_layer(layer, "silu", keeps) for keeps in (True, True, False))
    return {
        name: float(all(torch.equal(one, other) for other in others))
        for name, one, *others in zip(NAMES, first, second, third, strict=True)
    }


def layer_options(dtype: str, device: str) -> dict[str, float]:
    """Added into given buffers, and only what is needed."""
    layer = Layer("an_expert_without_rows", dtype, device)
    _, _, _, *expected = layer.expected("silu")
    into = tuple(torch.randn(e.shape, generator=torch.Generator().manual_seed(1)).to(device) for e in expected)
    before = [buffer.clone() for buffer in into]
    _, hidden = engine.forward(*layer.inputs, layer.plan, activation="silu", keeps_hidden=True)
    words = {"activation": "silu"}

    def gradients(needs: tuple[bool, ...], into: tuple[Tensor, ...] | None) -> tuple[Tensor | None, ...]:
        with poisoned():
            return engine.backward(layer.grad, *layer.inputs, hidden, layer.plan, needs=needs, into=into, **words)

    whole, added = gradients(ALL, None), gradients(ALL, into)
    result = {
        "gate_up": error(into[0] - before[0], expected[0]),
        "down": error(into[1] - before[1], expected[1]),
        "none_returned": float(added[2] is None and added[3] is None),
        "untouched_without_rows": float(torch.equal(into[0][2:], before[0][2:])),
    }
    for wanted in range(4):
        part = gradients(tuple(place == wanted for place in range(4)), None)
        is_right = [
            place != wanted if got is None else torch.equal(got, whole[place]) for place, got in enumerate(part)
        ]
        result[f"only_{NAMES[wanted + 1]}"] = float(all(is_right) and part[wanted] is not None)
    return result


def graph_equal(dtype: str, device: str) -> dict[str, float]:
    """A CUDA graph of plan, forward and backward, replayed on another batch, equals the launches one by one."""
    layer = Layer("many", dtype, device, "large")
    ids, other = layer.ids.to(device), layer.ids.flip(0).roll(1, 1).to(device)
    x, weight, gate_up, down = layer.inputs

    def step() -> tuple[Tensor, ...]:
        plan = RoutingPlan(*engine.plan(ids, layer.num_experts))
        words = {"activation": "silu"}
        out, hidden = engine.forward(x, weight, gate_up, down, plan, keeps_hidden=True, **words)
        grads = engine.backward(layer.grad, x, weight, gate_up, down, hidden, plan, needs=ALL, into=None, **words)
        return out, *grads

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    ids.copy_(other)
    x.mul_(-0.5)
    graph.replay()
    replayed = [tensor.clone() for tensor in captured]
    return {n: float(torch.equal(one, two)) for n, one, two in zip(NAMES, replayed, step(), strict=True)}


def far_equal(dtype: str, device: str) -> dict[str, float]:
    """Where pre-activations lie beyond 2**31 elements the last tokens come out as they do alone."""
    tokens, width, features = 66000, 64, 16640
    generator = torch.Generator(device).manual_seed(0)
    kind = getattr(torch, dtype)

    def normal(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=generator, device=device) / 8).to(kind)

    matrices = (normal(2, 2 * features, width), normal(2, width, features))
    x, grad, weight = normal(tokens, width), normal(tokens, width), torch.ones(tokens, 1, device=device)
    ids = (torch.arange(tokens, device=device) >= tokens // 2).long()[:, None]

    def step(part: slice) -> tuple[Tensor, Tensor]:
        plan = RoutingPlan(*engine.plan(ids[part].contiguous(), 2))
        inputs = (x[part].contiguous(), weight[part].contiguous(), *matrices)
        out, hidden = engine.forward(*inputs, plan, activation="silu", keeps_hidden=True)
        words = {"activation": "silu", "needs": (True, False, False, False), "into": None}
        grad_x, *_ = engine.backward(grad[part].contiguous(), *inputs, hidden, plan, **words)
        assert grad_x is not None
        return out[-100:], grad_x[-100:]

    whole, alone = step(slice(None)), step(slice(tokens - 20000, None))
    return {"out": error(whole[0], alone[0].double()), "x": error(whole[1], alone[1].double())}
