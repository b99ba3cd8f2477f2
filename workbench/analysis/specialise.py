"""How much an expert says about the text it gets: specialisation by domain and by token id."""

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from workbench.analysis._choices import choices
from workbench.analysis._groups import Groups, Label, labelled_tokens
from workbench.analysis._labelled import labelled, measured
from workbench.core.check import at_least
from workbench.core.context import Phase
from workbench.trace.schema import Trace

__all__ = ["specialisation"]

_NOTHING = 1e-9


def specialisation(
    trace: Trace,
    *,
    by: Label = "domain",
    phase: Phase | None = None,
    is_probe: bool = False,
    min_count: int = 20,
    shuffles: int = 10,
    seed: int = 0,
) -> xr.DataArray:
    """Mutual information of expert and label, from 0 by chance to 1 for perfect specialisation.

    A token with several experts counts for each by an equal part. What few tokens feign is measured by
    shuffling the labels among the tokens and is taken off, from the information and from its limit.
    The limit is the smaller of two: the entropy of the labels, and the entropy of the experts less what
    several experts per token leave open. Tokens of one sequence resemble each other, which shuffling
    does not know: with few sequences a router that only follows its own past is above 0.

    Args:
        by: `domain` of the text, or `token_id`.
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.
        min_count: labels of fewer tokens are left out.
        shuffles: how often chance is drawn.
        seed: of the shuffling.

    Returns:
        Share of the limit [1] over `layer`; a little below 0 where chance did better, NaN where there is
        nothing to find: one expert only, or chance alone reaches the limit. Coordinates:
        `information`, `by_chance` and `limit` [nat], and `spread` [1], the standard deviation of the
        result under chance.

    Raises:
        LookupError: no routing of this phase, or fewer than two labels that are frequent enough.
        ValueError: several phases and none asked for, or an unknown option.
    """
    at_least("shuffles", shuffles, 2, hint="the spread needs two")
    groups = labelled_tokens(choices(trace, phase=phase, is_probe=is_probe), by, min_count)
    generator = np.random.default_rng(seed)
    rows = [_layer(groups, layer, shuffles, generator) for layer in range(len(groups.found.layer))]
    table = np.array(rows).reshape(-1, 5).T
    texts = ("mutual information of expert and label", "the same with labels shuffled", "what it could be at most")
    parts = {
        name: measured("layer", values, text, "nat")
        for name, values, text in zip(("information", "by_chance", "limit"), table[1:4], texts, strict=True)
    }
    parts["spread"] = measured("layer", table[4], "standard deviation under chance", "1")
    return labelled(
        table[0],
        ("layer",),
        name="specialisation",
        long_name=f"mutual information of expert and {by}, chance taken off, over its limit",
        units="1",
        over=groups.over,
        coords=groups.found.coords("layer") | parts,
        facts={"shuffles": shuffles, "seed": seed},
    )


def _layer(
    groups: Groups, layer: int, shuffles: int, generator: np.random.Generator
) -> tuple[float, float, float, float, float]:
    """The result, the information, that of chance, its limit, and the spread of the result."""
    expert = groups.found.expert[layer]
    chosen = (expert >= 0).sum(-1)
    served = np.flatnonzero(chosen)
    label, expert, chosen = groups.label[served], expert[served], chosen[served]
    if not served.size:
        return (np.nan,) * 5
    token, slot = np.nonzero(expert >= 0)
    choice, part = expert[token, slot], 1.0 / chosen[token]
    own = _entropy(np.bincount(choice, part))
    labels = _entropy(np.bincount(label).astype(np.float64))
    limit = min(labels, own - float(np.log(chosen).mean()))
    width = int(choice.max()) + 1

    def information(of: Int[np.ndarray, "T"]) -> float:
        return own + labels - _entropy(np.bincount(of[token] * width + choice, part))

    found = information(label)
    drawn = np.array([information(generator.permutation(label)) for _ in range(shuffles)])
    chance = float(drawn.mean())
    room = limit - chance
    if room <= _NOTHING:
        return np.nan, found, chance, limit, np.nan
    return (found - chance) / room, found, chance, limit, float(drawn.std(ddof=1)) / room


def _entropy(counts: Float[np.ndarray, "cells"]) -> float:
    """Entropy [nat] of shares in proportion to these counts."""
    positive = counts[counts > 0]
    total = positive.sum()
    return float(np.log(total) - (positive * np.log(positive)).sum() / total)
