"""Dumps of SGLang's expert distribution recorder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Int

from workbench.core.context import Phase
from workbench.trace.blocks import join, to_trace
from workbench.trace.checks import require_valid
from workbench.trace.imports.dumped import DumpedPass, DumpedText, trace_of_dump
from workbench.trace.schema import SCHEMA, TEXT, Trace

__all__ = ["import_sglang"]

_ORIGIN = "SGLang expert distribution recorder"
_KEYS = ("forward_pass_id", "input_ids", "positions", "extend_seq_lens", "forward_mode", "topk_ids_of_layer")
# SGLang's ForwardMode, whose other members are kinds of speculative decoding.
_EXTEND, _DECODE, _MIXED, _IDLE = 1, 2, 3, 4
# torch refuses a file that would run code with this error of a module that no file here may import.
_REFUSED: type[Exception] = vars(torch.serialization)["pickle"].UnpicklingError


def import_sglang(path: Path | str, *, top_k: int | None = None, phase: Phase = "decode") -> Trace:
    """What a `.pt` file of the recorder holds: routings of tokens, or counts.

    A file recorded with `--expert-distribution-recorder-mode per_token` becomes `/routing` (and the `/load` that
    follows from it). It names physical experts; they are translated by the map in the file, which is that of the
    moment of the dump, and wrong for tokens before a rebalancing. It does not say to which request a decode token
    belongs: it continues the open text that is as long as its position, the first of several; so texts of equal
    length may be confused. Recorded with `stat` or `stat_approx` it becomes `/load` only, one row per forward pass.
    Layers without any expert are dense, and are not counted.

    The form is that of `python/sglang/srt/eplb/expert_distribution.py` in sgl-project/sglang, as read from its
    source; files of one rank are read one by one, since ranks without data parallelism repeat each other.

    Args:
        top_k: experts of a token; needed to tell tokens from counts, which stay unknown (0) without it.
        phase: of counts, which do not say.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, one that would run code, or one that contradicts itself.
    """
    file = Path(path)
    data = _opened(file)
    if "records" in data:
        return _per_token(file, data, top_k)
    if "logical_count" in data:
        return _counts(file, data, top_k, phase)
    raise ValueError(
        f"{file}: expected a dump with 'records' (per_token) or 'logical_count' (stat), got keys "
        f"{', '.join(map(str, data)) or 'none'}; is it a file of the expert distribution recorder?"
    )


def _opened(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file; give one .pt file that the recorder wrote")
    try:
        data = torch.load(file, map_location="cpu", weights_only=True)
    except (_REFUSED, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(
            f"{file}: expected a file of torch.save with tensors and plain values, got {str(error).splitlines()[0]}; "
            "it is damaged, or holds code, which is not run"
        ) from error
    if not isinstance(data, dict):
        raise ValueError(f"{file}: expected a mapping, got {type(data).__name__}; is it a file of the recorder?")
    return data


def _per_token(file: Path, data: Mapping[str, Any], top_k: int | None) -> Trace:
    records = [_record(file, number, record) for number, record in enumerate(data["records"])]
    records = [record for record in records if record["forward_mode"] != _IDLE and record["input_ids"]]
    if not records:
        raise ValueError(f"{file}: expected at least one forward pass with tokens, got none; record some requests")
    logical = _tensor(file, "last_physical_to_logical_map", data.get("last_physical_to_logical_map"), 2)
    expert = [_logical(file, number, record["topk_ids_of_layer"], logical) for number, record in enumerate(records)]
    width = max(int((one >= 0).sum(-1).max()) for one in expert)
    layers = np.flatnonzero(np.any([(one >= 0).any((1, 2)) for one in expert], axis=0))
    for record, one in zip(records, expert, strict=True):
        found = (one[layers] >= 0).sum(-1)
        wanted = width if top_k is None else top_k
        if (found != wanted).any():
            layer, token = np.argwhere(found != wanted)[0].tolist()
            raise ValueError(
                f"{file}: expected {wanted} experts for every token, got {found[layer, token]} for token {token} of "
                f"forward pass {record['forward_pass_id']} in layer {layers[layer]}; give the right top_k, or record "
                "without fused shared experts"
            )
    texts = _Texts()
    passes = [
        _pass(file, record, one[layers, :, :width].transpose(1, 0, 2), texts)
        for record, one in zip(records, expert, strict=True)
    ]
    return trace_of_dump(
        [part for parts in passes for part in parts],
        modules=[f"model.layers.{layer}.mlp" for layer in layers],
        num_experts=int(logical.max()) + 1,
        origin=_ORIGIN,
        router="sglang",
    )


class _Texts:
    """Which text a run of tokens continues, by its length."""

    def __init__(self) -> None:
        self._length: dict[int, int] = {}

    def place(self, start: int, tokens: int, taken: set[int]) -> int:
        """The number of the first text of so many tokens that the pass does not have yet, or a new one."""
        fitting = (text for text, length in self._length.items() if start and length == start and text not in taken)
        text = next(fitting, len(self._length))
        taken.add(text)
        self._length[text] = start + tokens
        return text


def _pass(file: Path, record: Mapping[str, Any], expert: Int[np.ndarray, "T L K"], texts: _Texts) -> list[DumpedPass]:
    """One pass, or two where it reads and writes: those tokens that continue a text by one are decoded."""
    number, ids, positions = record["forward_pass_id"], record["input_ids"], record["positions"]
    lengths = [1] * len(ids) if record["forward_mode"] == _DECODE else record["extend_seq_lens"]
    if lengths is None or sum(lengths) != len(ids):
        raise ValueError(
            f"{file}: expected extend_seq_lens that sum to {len(ids)} tokens in forward pass {number}, got {lengths}; "
            "the file contradicts itself"
        )
    taken: set[int] = set()
    found: dict[Phase, list[DumpedText]] = {"prefill": [], "decode": []}
    start = 0
    for length in lengths:
        stop, first = start + length, positions[start]
        if positions[start:stop] != list(range(first, first + length)):
            raise ValueError(
                f"{file}: expected positions that follow each other from {first} in forward pass {number}, got "
                f"{positions[start:stop][:8]}; only plain texts are read"
            )
        is_written = record["forward_mode"] == _DECODE or (record["forward_mode"] == _MIXED and length == 1 and first)
        text = texts.place(first, length, taken)
        own = DumpedText(text, first, np.array(ids[start:stop]), expert[start:stop])
        found["decode" if is_written else "prefill"].append(own)
        start = stop
    return [DumpedPass(phase, own) for phase, own in found.items() if own]


def _record(file: Path, number: int, record: object) -> Mapping[str, Any]:
    if not isinstance(record, dict):
        raise ValueError(f"{file}: expected records of keys and values, got {type(record).__name__} as record {number}")
    if "topk_ids_of_layer" not in record:
        raise ValueError(
            f"{file}: expected topk_ids_of_layer in record {number}, got {', '.join(map(str, record))}; it was "
            "recorded per_pass, which keeps no tokens: record with mode per_token, or stat for counts"
        )
    absent = [key for key in _KEYS if key not in record]
    if absent:
        raise ValueError(f"{file}: expected {absent[0]} in record {number}, got none; which version wrote it?")
    mode, ids, positions = record["forward_mode"], record["input_ids"], record["positions"]
    if mode not in (_EXTEND, _DECODE, _MIXED, _IDLE):
        raise ValueError(
            f"{file}: expected forward_mode 1 to 4 (extend, decode, mixed, idle) in record {number}, got {mode}; "
            "speculative decoding is not read, record without it"
        )
    shape = tuple(_tensor(file, f"topk_ids_of_layer of record {number}", record["topk_ids_of_layer"], 3).shape)
    if len(ids) != len(positions) or shape[1] != len(ids):
        raise ValueError(
            f"{file}: expected as many positions and routed tokens as input_ids ({len(ids)}) in record {number}, got "
            f"{len(positions)} and {shape[1]}; the file contradicts itself"
        )
    return cast(Mapping[str, Any], record)


def _logical(
    file: Path, number: int, physical: torch.Tensor, logical: Int[np.ndarray, "L P"]
) -> Int[np.ndarray, "L T K"]:
    chosen = physical.numpy().astype(np.int64)
    if len(chosen) != len(logical) or chosen.min() < -1 or chosen.max() >= logical.shape[1]:
        raise ValueError(
            f"{file}: expected {logical.shape[0]} layers of experts -1 to {logical.shape[1] - 1} in record {number}, "
            f"got {len(chosen)} layers of {chosen.min()} to {chosen.max()}; the map in the file is of another model"
        )
    experts = logical[np.arange(len(logical))[:, None, None], np.maximum(chosen, 0)]
    experts[chosen < 0] = -1
    return experts


def _counts(file: Path, data: Mapping[str, Any], top_k: int | None, phase: Phase) -> Trace:
    counts = _tensor(file, "logical_count", data["logical_count"], 3).astype(np.float64)
    if (counts < 0).any():
        raise ValueError(f"{file}: expected counts of at least 0, got {int(counts.min())}; the file is damaged")
    # layers that nothing was ever sent to are dense.
    counts = counts[:, counts.any((0, 2))]
    asked = counts.sum(-1)
    if not asked.size:
        raise ValueError(f"{file}: expected counts of at least one pass, got none; record some requests")
    with np.errstate(invalid="ignore", divide="ignore"):
        load = counts / asked[..., None]
    nothing = np.full(asked.shape, np.nan)
    columns = {
        "step": np.arange(len(counts), dtype=np.int64),
        "phase": np.array([phase] * len(counts), dtype=TEXT),
        "load": load.astype(np.float32),
        "prob_mean": np.full_like(load, np.nan, dtype=np.float32),
        "entropy": nothing.astype(np.float32),
        "cv": (load.std(-1) * load.shape[-1]).astype(np.float32),
        "dead_fraction": np.where(asked > 0, (counts == 0).mean(-1), np.nan).astype(np.float32),
        "dropped_fraction": nothing.astype(np.float32),
        "tokens": (asked.max(-1) / top_k if top_k else np.zeros(len(counts))).round().astype(np.int64),
    }
    unknown = ["prob_mean", "entropy", "dropped_fraction", *([] if top_k else ["tokens"])]
    trace = to_trace(join([{"load": columns}]), {"": {"schema": SCHEMA, "origin": _ORIGIN, "unknown": unknown}})
    require_valid(trace)
    return trace


def _tensor(file: Path, name: str, value: object, dims: int) -> Any:
    if not isinstance(value, torch.Tensor) or value.dim() != dims or value.is_floating_point():
        got = f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise ValueError(f"{file}: expected {name} as whole numbers of {dims} dimensions, got {got}; is it damaged?")
    return value.numpy()
