"""Products of the PyTorch engine: in which dtype, by which library, and where gradients of matrices go."""

from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from workbench_kernels.parts import Part, Piece
from workbench_kernels.workspace import buffer, recycled

__all__ = ["WeightGradient", "add_product", "cast", "product", "product_dtype", "products", "sum_dtype", "wide_dtype"]


def sum_dtype(tensor: Tensor) -> torch.dtype:
    """Dtype of sums and of everything between two products."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def product_dtype(tensor: Tensor) -> torch.dtype:
    """Dtype in which products of such tensors are fastest and exact enough."""
    # a CPU without instructions for half precision multiplies it several times slower than float32.
    is_half = tensor.dtype in (torch.bfloat16, torch.float16)
    if is_half and tensor.device.type == "cpu":
        return torch.bfloat16 if tensor.dtype == torch.bfloat16 and _multiplies_bfloat16() else torch.float32
    return tensor.dtype


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """Dtype of the factors of a product that must not be rounded to the dtype of such tensors.

    Pairs of bfloat16 are twice as fast as float32, which leaves float32 the cheapest way to a float32 product;
    tiles are sixteen times as fast, so that there the product and what its rounding lost are computed in bfloat16.
    """
    has_wide_products = tensor.device.type != "cpu" or torch.cpu._is_amx_tile_supported()
    return product_dtype(tensor) if has_wide_products else sum_dtype(tensor)


def cast(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """The tensor, or its copy in the buffer of that name where its dtype is another one."""
    if tensor.dtype == dtype:
        return tensor
    return buffer(name, tuple(tensor.shape), dtype, tensor.device).copy_(tensor)


def products(
    part: Part, left: Tensor, stacked: Tensor, *, out: Tensor, is_turned: bool = False, is_exact: bool = False
) -> Tensor:
    """For every piece of a part its rows times the matrix of its expert.

    Args:
        left: rows of the part, in the dtype of the products.
        is_turned: the matrices are applied as `linear` applies them.
        is_exact: as in `product`.
    """
    # what the factors' dtype must hold on the way is widened once for all pieces.
    is_direct = is_exact or left.dtype == out.dtype or out.device.type == "cuda"
    place = out if is_direct else buffer("narrow", tuple(out.shape), left.dtype, out.device)
    for expert, inner, _, _ in part.pieces:
        matrix = cast(stacked[expert], left.dtype, "matrix")
        product(left[inner], matrix.t() if is_turned else matrix, out=place[inner], is_exact=is_exact)
    return out if is_direct else out.copy_(place)


def product(left: Tensor, right: Tensor, *, out: Tensor, is_exact: bool = False) -> Tensor:
    """The matrix product, in the dtype of its factors, written in that of `out`.

    Args:
        is_exact: a CPU must not round it to the dtype of its factors on the way; twice the work where it would.
    """
    if _is_for_onednn(left, right):
        return out.copy_(_onednn(left, right))
    if left.dtype == out.dtype:
        return torch.mm(left, right, out=out)
    if left.device.type == "cuda" and out.dtype == torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32, out=out)
    narrow = torch.mm(left, right, out=buffer("of one product", tuple(out.shape), left.dtype, out.device))
    out.copy_(narrow)
    # a sum is rounded last, so that this one is what the first rounding lost.
    return out.add_(narrow.addmm_(left, right, beta=-1)) if is_exact else out


def add_product(left: Tensor, right: Tensor, *, out: Tensor) -> Tensor:
    """Adds the matrix product to `out`; factors of a narrower dtype give one that is rounded to it."""
    if _is_for_onednn(left, right):
        return out.add_(_onednn(left, right))
    return out.addmm_(left, right) if left.dtype == out.dtype else out.add_(torch.mm(left, right))


class WeightGradient:
    """Gradient of stacked matrices: each expert's is written once, or added to what is there."""

    def __init__(self, name: str, stacked: Tensor, into: Tensor | None, bounds: list[int]):
        # two gradients of one expert grow side by side, each in its own buffer.
        self.total = f"total of {name}"
        self.adds = into is not None
        self.target = _like(stacked) if into is None else into
        if not self.adds:
            # every expert with rows is written whole, so only the others need zeros.
            for expert, (low, high) in enumerate(pairwise(bounds)):
                if low == high:
                    self.target[expert].zero_()

    def add(self, part: Part, left: Tensor, right: Tensor) -> None:
        """Count in the products of a part's rows, for each expert left transposed times right; parts come in order."""
        for piece in part.pieces:
            self._add(piece, left[piece.inner].t(), right[piece.inner])

    def _add(self, piece: Piece, left: Tensor, right: Tensor) -> None:
        place = self.target[piece.expert]
        is_new = piece.is_first and not self.adds
        if (is_new and piece.is_last) or place.dtype == sum_dtype(place):
            product(left, right, out=place) if is_new else add_product(left, right, out=place)
        else:
            self._add_exactly(place, piece, left, right)

    def _add_exactly(self, place: Tensor, piece: Piece, left: Tensor, right: Tensor) -> None:
        total = buffer(self.total, tuple(place.shape), sum_dtype(place), place.device)
        product(left, right, out=total) if piece.is_first else add_product(left, right, out=total)
        if piece.is_last:
            place.add_(total) if self.adds else place.copy_(total)


def _like(stacked: Tensor) -> Tensor:
    if stacked.is_contiguous():
        return recycled(tuple(stacked.shape), stacked.dtype, stacked.device)
    return torch.empty_like(stacked)


def _multiplies_bfloat16() -> bool:
    has_instructions = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return has_instructions and _has_onednn()


def _is_for_onednn(left: Tensor, right: Tensor) -> bool:
    # MKL keeps to 256 bits on other CPUs than Intel's: half the speed of oneDNN with AVX-512.
    is_float32 = left.dtype == torch.float32 and left.device.type == "cpu"
    return is_float32 and left.numel() > 0 < right.numel() and torch.cpu._is_avx512_supported() and _has_onednn()


@cache
def _has_onednn() -> bool:
    # a PyTorch without oneDNN does not know the name.
    return torch._C._has_mkldnn and torch._C._dispatch_has_kernel_for_dispatch_key("mkldnn::_linear_pointwise", "CPU")


def _onednn(left: Tensor, right: Tensor) -> Tensor:
    """The matrix product in new memory: PyTorch gives oneDNN's float32 products no place to write to."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise.default(left, right.t(), None, "none", [], "")
    return found
