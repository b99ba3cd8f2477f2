"""Each kernel on its own, with small blocks so that every size has several and none divides it."""

import itertools

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton_layers import ALL, Layer, error, ids_of, poisoned
from workbench_kernels.reference import ACTIVATIONS, plan_ref
from workbench_kernels.triton import backward, down, engine, grouped_mm, up, wgrad
from workbench_kernels.triton import plan as plan_module
from workbench_kernels.triton.configs import Config

SMALL = Config(block_m=16, block_n=16, block_k=16, group_m=2, num_warps=4, num_stages=2)


def plan_equal(
    case: str, device: str, dtype: str = "int64", block: int | None = 16, counts_apart: bool | None = None
) -> dict[str, float]:
    """The plan of the reference, with small blocks so that several share an expert."""
    ids, num_experts = ids_of(case)
    given = ids.to(getattr(torch, dtype)).to(device)
    with poisoned():
        got = plan_module.sort_by_expert(given, num_experts, block=block, counts_apart=counts_apart)
    want = plan_ref(ids, num_experts)
    return {
        name: float(torch.equal(part.cpu(), wanted))
        for name, part, wanted in zip(
            ("rows", "row_of", "offsets"), got, (want.rows, want.row_of, want.offsets), strict=True
        )
    }


def up_errors(case: str, dtype: str, device: str, activation: str, keeps: tuple[bool, bool]) -> dict[str, float]:
    layer = Layer(case, dtype, device)
    x, _, gate_up, _ = layer.inputs
    with poisoned():
        made = up.up(
            x, gate_up, layer.plan.rows, layer.plan.offsets,
            activation=activation, keeps_hidden=keeps[0], keeps_activated=keeps[1], config=SMALL,
        )  # fmt: skip
    exact = by_expert(layer.clean[0].double(), layer.clean[2].double(), layer)
    gate, second = exact.chunk(2, dim=-1)
    expected = (exact, ACTIVATIONS[activation](gate) * second)
    names = ("hidden", "activated")
    return {
        name: error(got[: layer.num_used], want) if kept else float(got is None)
        for name, got, want, kept in zip(names, made, expected, keeps, strict=True)
    }


def by_expert(tokens: Tensor, matrices: Tensor, layer: Layer) -> Tensor:
    """Every used row's token, or row, times the matrix of its expert."""
    bounds = layer.plan.offsets.tolist()
    rows = layer.plan.rows.cpu().long()
    parts = [tokens[rows[a:b]] @ m.T for a, b, m in zip(bounds[:-1], bounds[1:], matrices, strict=True)]
    return torch.cat(parts) if parts else tokens.new_zeros(0, matrices.shape[1])


def grouped_errors(case: str, dtype: str, device: str, config: bool = True) -> dict[str, float]:
    """The product and its backward; rows past the last expert's are zeros."""
    layer = Layer(case, dtype, device)
    generator = torch.Generator().manual_seed(2)
    num_rows, weight = layer.plan.num_rows, layer.clean[2]
    rows = torch.randn(num_rows, weight.shape[2], generator=generator).to(weight.dtype)
    grad = torch.randn(num_rows, weight.shape[1], generator=generator).to(weight.dtype)
    leaves = [rows.double().requires_grad_(), weight.double().requires_grad_()]
    bounds = layer.plan.offsets.tolist()
    parts = [leaves[0][a:b] @ m.T for a, b, m in zip(bounds[:-1], bounds[1:], leaves[1], strict=True)]
    out = torch.cat([*parts, torch.zeros(num_rows - layer.num_used, weight.shape[1], dtype=torch.float64)])
    wanted = torch.autograd.grad(out, leaves, grad.double())
    rows, weight, grad = (tensor.to(device) for tensor in (rows, weight, grad))
    with poisoned():
        if config:
            got = grouped_mm.multiply(rows, weight, layer.plan.offsets, config=SMALL)
            grads = (
                grouped_mm.multiply(grad, weight, layer.plan.offsets, transposes=True, config=SMALL),
                wgrad.weight_gradient(grad, rows, layer.plan.offsets, config=SMALL),
            )
        else:
            got = engine.grouped_mm(rows, weight, layer.plan.offsets)
            grads = engine.grouped_mm_backward(grad, rows, weight, layer.plan.offsets, ALL[:2])
    names = ("out", "rows", "weight")
    return {n: error(g, e) for n, g, e in zip(names, (got, *grads), (out.detach(), *wanted), strict=True)}


def combine_errors(case: str, dtype: str, device: str) -> dict[str, float]:
    """Sums over a token's rows; rows of nobody are NaN and must not be read."""
    layer = Layer(case, dtype, device)
    row_of, weight = layer.plan.row_of.cpu().long(), layer.clean[1].double()
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(layer.plan.num_rows, 1100, generator=generator).to(layer.inputs[0].dtype)
    parts = torch.randn(layer.plan.num_rows, 5, generator=generator)
    picked = torch.where((row_of >= 0)[..., None], rows.double()[row_of.clamp_min(0)], 0)
    shares = torch.where(row_of >= 0, parts.double().sum(1)[row_of.clamp_min(0)], 0)
    rows[layer.num_used :], parts[layer.num_used :] = torch.nan, torch.nan
    rows, parts = rows.to(device), parts.to(device)
    with poisoned():
        weighted = down.combine(rows, layer.plan.row_of, layer.inputs[1])
        wide = down.combine(rows, layer.plan.row_of, layer.inputs[1], dtype=torch.float32)
        plain, summed = down.combine_backward(rows, layer.plan.row_of, parts)
        nothing, alone = down.combine_backward(None, layer.plan.row_of, parts)
    return {
        "weighted": error(weighted, (picked * weight[..., None]).sum(1)),
        "is_wide": float(error(wide, (picked * weight[..., None]).sum(1)) < 1e-6),
        "plain": error(plain, picked.sum(1)),
        "shares": error(summed, shares),
        "alone": error(alone, shares) + float(nothing is not None),
    }


def activation_errors(case: str, dtype: str, device: str, activation: str, block_n: int) -> dict[str, float]:
    """What the backward product leaves, against autograd of the reference from the same pre-activations."""
    layer = Layer(case, dtype, device, "large" if block_n > 16 else "small")
    kind, (_, weight, gate_up, matrix) = layer.inputs[0].dtype, layer.inputs
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(layer.plan.num_rows, gate_up.shape[1], generator=generator).to(kind)
    config = Config(
        block_m=16, block_n=block_n, block_k=16 if block_n == 16 else 64, group_m=2, num_warps=4, num_stages=2
    )
    with poisoned():
        got = backward.activation_backward(
            layer.grad, matrix, hidden.to(device),
            rows=layer.plan.rows, row_of=layer.plan.row_of, offsets=layer.plan.offsets, weight=weight,
            activation=activation, needs=(True, True, True), config=config,
        )  # fmt: skip
    used = layer.num_used
    leaf = hidden[:used].double().requires_grad_()
    gate, second = leaf.chunk(2, dim=-1)
    activated = ACTIVATIONS[activation](gate) * second
    row_of = layer.plan.row_of.cpu().long()
    share = torch.zeros(used, dtype=torch.float64)
    share[row_of[row_of >= 0]] = layer.clean[1].double()[row_of >= 0]
    product = by_expert(layer.clean_grad.double(), layer.clean[3].double().transpose(1, 2), layer)
    (wanted,) = torch.autograd.grad(activated, leaf, product * share[:, None])
    made, scaled, partial = (None if part is None else part[:used] for part in got)
    return {
        "hidden": error(made, wanted),
        "scaled": error(scaled, (activated * share[:, None]).detach()),
        "weight": error(partial.double().sum(1), (product * activated).sum(1).detach()),
    }


def wgrad_errors(case: str, dtype: str, device: str, gathers: str) -> dict[str, float]:
    layer = Layer(case, dtype, device)
    kind, rows, used = layer.inputs[0].dtype, layer.plan.rows, layer.num_used
    by_row = torch.randn(layer.plan.num_rows, 24, generator=torch.Generator().manual_seed(6)).to(kind)
    by_token = layer.clean[0]
    sides = {"left": (by_token, by_row), "right": (by_row, by_token)}[gathers]
    dirty = torch.cat([by_row[:used], torch.full_like(by_row[used:], torch.nan)])
    given = {"left": (layer.inputs[0], dirty.to(device)), "right": (dirty.to(device), layer.inputs[0])}[gathers]
    spread = [s.double()[rows.cpu().long()] if s is by_token else s.double() for s in sides]
    bounds = layer.plan.offsets.tolist()
    spans = list(itertools.pairwise(bounds))
    expected = torch.stack([spread[0][a:b].T @ spread[1][a:b] for a, b in spans])
    words = {"rows": rows, "gathers": gathers, "config": SMALL}
    sizes = torch.tensor(bounds).diff()
    with poisoned():
        words["order"] = wgrad.largest_first(layer.plan.offsets)
        got = wgrad.weight_gradient(*given, layer.plan.offsets, **words)
        into = torch.ones(expected.shape, device=device)
        nothing = wgrad.weight_gradient(*given, layer.plan.offsets, into=into, **words)
    is_empty = torch.tensor([a == b for a, b in spans])
    return {
        "gradient": error(got, expected),
        "zeros_where_empty": float((got.cpu()[is_empty] == 0).all()),
        "added": error(into, expected + 1),
        "none_returned": float(nothing is None),
        "ordered": float(torch.equal(words["order"].cpu().long(), sizes.argsort(descending=True, stable=True))),
    }


def both_wgrad_errors(case: str, dtype: str, device: str, config: bool = True) -> dict[str, float]:
    """Both gradients of a layer in one launch; rows of nobody are NaN and must not be read."""
    layer = Layer(case, dtype, device)
    kind, rows, used = layer.inputs[0].dtype, layer.plan.rows.cpu().long(), layer.num_used
    generator = torch.Generator().manual_seed(8)
    scaled, grad_hidden = (torch.randn(len(rows), n, generator=generator).to(kind) for n in (24, 48))
    bounds = list(itertools.pairwise(layer.plan.offsets.tolist()))
    pairs = [(grad_hidden, layer.clean[0][rows]), (layer.clean_grad[rows], scaled)]
    expected = [torch.stack([left[a:b].double().T @ right[a:b].double() for a, b in bounds]) for left, right in pairs]
    scaled[used:], grad_hidden[used:] = torch.nan, torch.nan
    given = (layer.grad, scaled.to(device), grad_hidden.to(device), layer.inputs[0])
    words = {"rows": layer.plan.rows, "offsets": layer.plan.offsets, "config": SMALL if config else None}
    into = tuple(torch.ones(e.shape, dtype=kind, device=device) for e in expected)
    with poisoned():
        got = wgrad.both_weight_gradients(*given, **words)
        nothing = wgrad.both_weight_gradients(*given, into=into, **words)
    is_empty = torch.tensor([a == b for a, b in bounds])
    return {
        "gate_up": error(got[0], expected[0]),
        "down": error(got[1], expected[1]),
        "added_gate_up": error(into[0], expected[0] + 1),
        "added_down": error(into[1], expected[1] + 1),
        "none_returned": float(nothing == (None, None)),
        "zeros_where_empty": float(all((made.cpu()[is_empty] == 0).all() for made in got)),
    }


def nan_passes(device: str, activation: str) -> dict[str, float]:
    """A NaN of the gate is one where PyTorch has one, in the activation and in the gradient, and nowhere else."""
    layer = Layer("one_token", "float32", device)
    x, weight, gate_up, matrix = layer.inputs
    gate_up[:, 3] = torch.nan
    words = {"activation": activation, "config": SMALL}
    hidden, activated = up.up(
        x, gate_up, layer.plan.rows, layer.plan.offsets, keeps_hidden=True, keeps_activated=True, **words
    )
    plan = {"rows": layer.plan.rows, "row_of": layer.plan.row_of, "offsets": layer.plan.offsets}
    grad_hidden, _, _ = backward.activation_backward(
        layer.grad, matrix, hidden, weight=weight, needs=(True, False, False), **plan, **words
    )
    leaf = hidden.detach().requires_grad_()
    gate, second = leaf.chunk(2, dim=-1)
    expected = ACTIVATIONS[activation](gate) * second
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    return {
        "has_nan": float(expected.isnan().any(0).nonzero().tolist() == [[3]]),
        "activated": float(torch.equal(activated.isnan(), expected.isnan())),
        "gradient": float(torch.equal(grad_hidden.isnan(), gradient.isnan())),
    }


@triton.jit
def _tell_expert(offsets, told, num_experts, BINS: tl.constexpr):
    place = tl.program_id(0)
    tl.store(told + place, wgrad._expert_at(place, offsets, num_experts, BINS))


def every_place_has_its_expert(device: str) -> dict[str, float]:
    """What each program finds for itself is what `largest_first` finds for all."""
    result = {}
    for num_experts in (1, 31, 32, 65, 128):
        counts = torch.randint(0, 4, (num_experts,), generator=torch.Generator().manual_seed(num_experts))
        offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int().to(device)
        told = torch.full((num_experts,), -1, dtype=torch.int32, device=device)
        _tell_expert[(num_experts,)](offsets, told, num_experts, BINS=plan_module.bins_of(num_experts - 1))
        result[str(num_experts)] = float(torch.equal(told, wgrad.largest_first(offsets)))
    return result


@triton.jit
def _tell(offsets, told, num_rows, num_experts, tile, BLOCK_M: tl.constexpr, BINS: tl.constexpr):
    _, first, end = plan_module.locate(offsets, tile, num_rows, num_experts, BLOCK_M, BINS)
    tl.store(told, first)
    tl.store(told + 1, end)


def tiles_without_rows(device: str) -> dict[str, float]:
    """A tile past all rows has none, also where its number times its length leaves 32 bits."""
    num_rows, num_experts = 2**31 - 2**16, 1024
    offsets = torch.tensor([0] * num_experts + [num_rows], dtype=torch.int32, device=device)
    told = torch.zeros(2, dtype=torch.int32, device=device)
    result = {}
    for tile in (num_rows // 128, num_rows // 128 + num_experts - 1):
        _tell[(1,)](offsets, told, num_rows, num_experts, tile, BLOCK_M=128, BINS=plan_module.bins_of(num_experts))
        first, end = told.tolist()
        result[str(tile)] = float(first >= end)
    return result


@triton.jit
def _mark(offsets, seen, num_rows, num_experts, m_tiles, n_tiles, BLOCK_M: tl.constexpr, BINS: tl.constexpr):
    m_tile, n_tile = plan_module.tile_of(tl.program_id(0), m_tiles, n_tiles, 3)
    expert, first, end = plan_module.locate(offsets, m_tile, num_rows, num_experts, BLOCK_M, BINS)
    row = first + tl.arange(0, BLOCK_M)
    at = seen + (expert * n_tiles + n_tile) * num_rows + row
    tl.store(at, tl.load(at, row < end, other=0) + 1, row < end)


def tiles_cover(device: str, block_m: int) -> dict[str, float]:
    """Every row belongs to one tile of its own expert; the rows of nobody to those of the expert past the last."""
    result = {}
    for name, counts in {"ragged": [5, 0, 17, 1, 0], "none": [0, 0], "one": [33], "many": [1] * 9}.items():
        num_rows, num_experts, n_tiles = sum(counts) + 4, len(counts), 2
        offsets = torch.tensor([0, *counts]).cumsum(0).int().to(device)
        seen = torch.zeros(num_experts + 1, n_tiles, num_rows, dtype=torch.int32, device=device)
        m_tiles = plan_module.tile_bound(num_rows, num_experts + 1, block_m)
        bins = plan_module.bins_of(num_experts)
        _mark[(m_tiles * n_tiles,)](offsets, seen, num_rows, num_experts, m_tiles, n_tiles, BLOCK_M=block_m, BINS=bins)
        owner = torch.repeat_interleave(torch.arange(num_experts + 1), torch.tensor([*counts, 4]))
        expected = torch.nn.functional.one_hot(owner, num_experts + 1).T[:, None].expand_as(seen)
        result[name] = float(torch.equal(seen.cpu().long(), expected))
    return result
