"""Bytes of an expert in every format, from the shapes that a trace says."""

import json

import torch

from workbench.core.check import within
from workbench.core.spec import Spec
from workbench.offload.config import budget_bytes
from workbench.offload.expert_format import ExpertFormat
from workbench.offload.formats import FORMATS
from workbench.offload.store.blocks import BlockShape, Part, parts_of
from workbench.trace.schema import Trace

__all__ = ["bytes_in_format", "expert_shape", "sizes_of"]

_WIDTHS = ("width", "hidden_size")
_HIDDEN = ("expert_width", "moe_intermediate_size", "intermediate_size")
_DTYPES = ("dtype", "torch_dtype")


def bytes_in_format(shape: BlockShape, format: Spec, *, mean_levels: float | None = None) -> int:
    """Bytes of an expert as a format holds it [B]; what a disk pads its blocks with is not counted.

    Args:
        shape: of the tensors as they compute.
        mean_levels: pages that an expert is read from, on average [1]; None for all that the format writes.

    Raises:
        LookupError: no such format.
        ValueError: an argument that it does not take, or more levels than it has.
    """
    chosen: ExpertFormat = format.build(FORMATS)
    levels = float(chosen.levels) if mean_levels is None else mean_levels
    within("mean_levels", levels, 1, chosen.levels, hint=f"{format} writes {chosen.levels} for each expert")
    # sizes do not depend on the weights, and without any a page costs nothing.
    empty = [torch.empty(part.shape, dtype=part.torch_dtype, device="meta") for part in shape.parts]
    return round(levels * parts_of(chosen.page_of(empty)).num_bytes)


def expert_shape(trace: Trace) -> BlockShape:
    """The tensors of an expert of the model that a trace was recorded from: gate and up, then down.

    A model of our own does not say its dtype: it is float32, as it is trained and saved.

    Raises:
        LookupError: the trace does not say the widths of its model.
    """
    try:
        about = json.loads(str(trace.attrs["model"]))
        known = {key: value for key, value in about.items() if value is not None}
    except (KeyError, ValueError, AttributeError):
        known = {}
    width, hidden = (next((int(known[key]) for key in keys if key in known), 0) for keys in (_WIDTHS, _HIDDEN))
    if not width or not hidden:
        raise LookupError(
            "the trace does not say how wide the experts of its model are; give their size instead of a format, "
            "as 9.4MB"
        )
    dtype = next((str(known[key]) for key in _DTYPES if key in known), "float32").removeprefix("torch.")
    return BlockShape((Part((2 * hidden, width), dtype), Part((width, hidden), dtype)))


def sizes_of(text: str, trace: Trace) -> dict[str, int]:
    """Bytes of an expert from `exact,int8,residual:levels=2,9.4MB`: formats and sizes.

    Raises:
        LookupError: no such format, or a trace that does not say how wide its experts are.
        ValueError: an argument that a format does not take, or one given twice.
    """
    sizes: dict[str, int] = {}
    for spec in Spec.parse_list(text):
        name = str(spec)
        if name in sizes:
            raise ValueError(f"every format is given once, got {name!r} twice in {text!r}")
        is_size = name[:1].isdecimal() and "%" not in name
        sizes[name] = budget_bytes(name, 1) if is_size else bytes_in_format(expert_shape(trace), spec)
    return sizes
