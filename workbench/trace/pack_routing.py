"""The `/routing` group from forward passes: the decisions kept for each site and token."""

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from workbench.trace.blocks import Columns
from workbench.trace.passes import Choice, Pass
from workbench.trace.schema import GROUPS, TEXT, safe_text

__all__ = ["routing_columns"]

_ROUTING = GROUPS["routing"]


def routing_columns(
    passes: Sequence[Pass], found: Sequence[tuple[int, Choice]], piece_of: Callable[[int], str]
) -> Columns:
    """The group's arrays; empty when no pass keeps its routing.

    Args:
        passes: forward passes in order.
        found: the decisions, each with the index of its first token.
        piece_of: text of a token id.
    """
    taken = [item for item in passes if item.take]
    if not taken:
        return {}
    return _token_columns(taken, piece_of) | _site_columns(found, sum(item.take for item in taken))


def _site_columns(found: Sequence[tuple[int, Choice]], tokens: int) -> Columns:
    labels = list(dict.fromkeys(choice.label for _, choice in found))
    at = {label: place for place, label in enumerate(labels)}
    names = _ROUTING.labels["site"]
    columns: Columns = {
        name: np.array([label[i] for label in labels], dtype=_ROUTING.variables[name].numpy_dtype)
        for i, name in enumerate(names)
    }
    columns["is_routed"] = np.zeros((len(labels), tokens), dtype=np.bool_)
    for start, choice in found:
        columns["is_routed"][at[choice.label], start : start + choice.expert.shape[0]] = True
    slots = max((max(c.expert.shape[1], 0 if c.ahead is None else c.ahead.shape[1]) for _, c in found), default=0)
    scored = max((c.prob.shape[1] for _, c in found if c.prob is not None), default=0)
    for name, width in (("expert", slots), ("weight", slots), ("kept", slots), ("ahead", slots), ("prob", scored)):
        variable = _ROUTING.variables[name]
        parts = [(at[c.label], start, c._asdict()[name]) for start, c in found]
        present = [part for part in parts if part[-1] is not None]
        if present or variable.is_required:
            columns[name] = np.full((len(labels), tokens, width), variable.filler, variable.numpy_dtype)
            _scatter(columns[name], present)
    columns["weight"][columns["expert"] < 0] = 0.0
    return columns


def _scatter(target: Shaped[np.ndarray, "sites T W"], parts: Sequence[tuple[int, int, Tensor]]) -> None:
    # parts of equal site and width travel together: one transfer instead of one per pass.
    alike: dict[tuple[int, int], list[tuple[int, Tensor]]] = {}
    for site, start, values in parts:
        alike.setdefault((site, values.shape[1]), []).append((start, values))
    for (site, width), items in alike.items():
        where = np.concatenate([np.arange(start, start + values.shape[0]) for start, values in items])
        target[site, where, :width] = torch.cat([values for _, values in items]).cpu().numpy()


def _token_columns(taken: Sequence[Pass], piece_of: Callable[[int], str]) -> Columns:
    parts = [_tokens_of(list(items)) for _, items in groupby(taken, key=_form)]
    columns: Columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    repeats = [item.take for item in taken]
    for name, values in (
        ("step", [item.step for item in taken]),
        ("phase", [item.phase for item in taken]),
        ("is_probe", [item.is_probe for item in taken]),
    ):
        columns[name] = np.repeat(np.array(values, dtype=_ROUTING.variables[name].numpy_dtype), repeats)
    distinct, inverse = np.unique(columns["token_id"], return_inverse=True)
    pieces = np.array([piece_of(token_id) for token_id in distinct.tolist()], dtype=TEXT)
    columns["piece"] = pieces[inverse]
    return columns


def _form(item: Pass) -> tuple[object, ...]:
    batch = item.batch
    assert batch is not None
    alone = 0 if item.is_whole else id(item)
    return (batch.token_ids.shape, batch.mask is None, batch.domain is None, batch.domains, alone)


def _tokens_of(items: Sequence[Pass]) -> Columns:
    """Coordinates of the tokens of passes that have the same form."""
    batches = [item.batch for item in items if item.batch is not None]
    take = sum(item.take for item in items)
    ids = _stack([batch.token_ids for batch in batches])
    mask = np.ones(ids.shape, dtype=np.bool_)
    if batches[0].mask is not None:
        mask = _stack([batch.mask for batch in batches if batch.mask is not None])
    # position counts real tokens only, so padding on either side moves nothing.
    place = mask.cumsum(-1) - 1 + np.array([item.position for item in items])[..., None]
    sequence = np.broadcast_to(np.array([item.sequence for item in items])[..., None], ids.shape)
    columns: Columns = {
        "token_id": ids[mask][:take].astype(np.int32),
        "sequence": sequence[mask][:take].astype(np.int32),
        "position": place[mask][:take].astype(np.int32),
        "domain": np.full(take, "", dtype=TEXT),
    }
    domains = [batch.domain for batch in batches if batch.domain is not None]
    if domains and batches[0].domains:
        # index -1 means unknown and finds the empty name at the end.
        names = np.array([*map(safe_text, batches[0].domains), ""], dtype=TEXT)
        columns["domain"] = names[_stack(domains)[mask][:take]]
    return columns


def _stack(tensors: Sequence[Tensor]) -> Shaped[np.ndarray, "n B S"]:
    return np.asarray(torch.stack(list(tensors)).cpu().numpy())
