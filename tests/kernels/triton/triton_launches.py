"""What a layer launches: our kernels, and the operators of PyTorch that are kernels on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton_layers import ALL
from workbench_kernels import moe_mlp, plan_routing
from workbench_kernels.plan import RoutingPlan
from workbench_kernels.triton import engine
from workbench_kernels.triton import plan as plan_module

Launched = dict[str, list[str]]
# Memory comes from the allocator, without a kernel.
FREE = {torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.new_empty, torch.ops.aten.empty_strided}


class _Operators(TorchDispatchMode):
    """Lists the operators that do more than look at memory, or ask for it."""

    def __init__(self, names: list[str]):
        super().__init__()
        self.names, self.is_listening = names, True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.is_listening and not func.is_view and func.overloadpacket not in FREE:
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@contextmanager
def recorded(*, runs: bool = True) -> Iterator[Launched]:
    """The names of all launches; without `runs` the kernels stay where they are."""
    launched: Launched = {"kernels": [], "operators": []}
    operators = _Operators(launched["operators"])
    # of Triton's compiler, or of its interpreter.
    kind = type(plan_module._place)
    run = kind.run

    def record(self, *args, **words):
        launched["kernels"].append(self.fn.__name__)
        # the interpreter computes with operators, too.
        operators.is_listening = False
        result = run(self, *args, **words) if runs else None
        operators.is_listening = True
        return result

    # whoever looks at operators gets to see the custom ones; what is in them launches as it does without a witness.
    unseen = (mock.patch(f"workbench_kernels.{name}.is_traced", lambda *_: False) for name in ("plan", "moe_mlp"))
    with mock.patch.object(kind, "run", record), next(unseen), next(unseen), operators:
        yield launched


@contextmanager
def profiled() -> Iterator[Launched]:
    """The names of the kernels that a GPU has run, PyTorch's among them."""
    launched: Launched = {"kernels": [], "operators": []}
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        yield launched
        torch.cuda.synchronize()
    launched["kernels"] += [
        event.name
        for event in sorted(profile.events(), key=lambda event: event.time_range.start)
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith("cuda")
    ]


def layer_launches(device: str, dtype: str, save: str = "hidden", is_wide: bool = False) -> Launched:
    """Of plan, forward and, unless the sum is wide, backward of a small layer, as its user calls them."""
    generator = torch.Generator().manual_seed(3)
    kind = getattr(torch, dtype)

    def normal(*shape: int, dtype: torch.dtype = kind) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype).requires_grad_(not is_wide)

    experts, width, features = 4, 48, 32
    ids = torch.rand(24, experts, generator=generator).argsort(-1)[:, :2].contiguous().to(device)
    leaves = (
        normal(24, width),
        normal(24, 2, dtype=torch.float32),
        normal(experts, 2 * features, width),
        normal(experts, width, features),
    )
    grad = normal(24, width).detach()

    def step() -> None:
        out = moe_mlp(*leaves, plan=plan_routing(ids, experts), save=save, is_wide=is_wide)
        if not is_wide:
            torch.autograd.grad(out, leaves, grad)

    if device == "cuda":
        # kernels are compiled and loaded in the first.
        step()
    with recorded() if device == "cpu" else profiled() as launched:
        step()
    return launched


def engine_launches(
    dtype: str, tokens: int, width: int, features: int, experts: int, top_k: int, adds: bool = False
) -> Launched:
    """Of plan, forward and backward of a layer of any size: tensors without numbers, and kernels that do not run."""
    kind = getattr(torch, dtype)

    def empty(*shape: int, dtype: torch.dtype = kind) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    ids, x = empty(tokens, top_k, dtype=torch.int64), empty(tokens, width)
    inputs = (x, empty(tokens, top_k, dtype=torch.float32), empty(experts, 2 * features, width))
    down = empty(experts, width, features)
    into = (torch.empty_like(inputs[2]), torch.empty_like(down)) if adds else None
    with recorded(runs=False) as launched:
        plan = RoutingPlan(*engine.plan(ids, experts))
        words = {"activation": "silu"}
        _, hidden = engine.forward(*inputs, down, plan, keeps_hidden=True, **words)
        engine.backward(x, *inputs, down, hidden, plan, needs=ALL, into=into, **words)
    return launched
