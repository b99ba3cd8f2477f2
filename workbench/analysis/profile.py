"""What each expert gets: tables per expert of domains and of token ids."""

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from workbench.analysis._choices import choices
from workbench.analysis._groups import Groups, labelled_tokens
from workbench.analysis._labelled import labelled, measured
from workbench.core.check import at_least
from workbench.core.context import Phase
from workbench.trace.schema import Trace

__all__ = ["domain_profile", "domain_variation", "top_token_ids"]

_SHUFFLES = 3


def domain_profile(trace: Trace, *, phase: Phase | None = None, is_probe: bool = False) -> xr.DataArray:
    """Share of each domain's tokens that ask for an expert: its activation rate by domain.

    Args:
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.

    Returns:
        Share of the domain's tokens [1] over `layer`, `expert`, `domain`; NaN for experts that a layer
        does not have. `tokens` counts each domain's; a rate p of n tokens is known to sqrt(p(1-p)/n).

    Raises:
        LookupError: no routing of this phase, or no domain was recorded.
        ValueError: several phases and none asked for.
    """
    groups = labelled_tokens(choices(trace, phase=phase, is_probe=is_probe), "domain", 1, at_least_labels=1)
    rate, tokens = _rates(groups)
    dims = ("layer", "expert", "domain")
    coords = groups.found.coords("layer", "expert") | {"domain": groups.names}
    coords["tokens"] = measured(("layer", "domain"), tokens, "tokens of the domain", "token")
    name = "share of a domain's tokens that ask for the expert"
    return labelled(rate, dims, name="domain_profile", long_name=name, units="1", over=groups.over, coords=coords)


def domain_variation(trace: Trace, *, phase: Phase | None = None, is_probe: bool = False) -> xr.DataArray:
    """Coefficient of variation over domains of an expert's activation rate.

    Every domain counts the same, whatever its length.

    Args:
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.

    Returns:
        Variation [1] over `layer`, `expert`: 0 for an expert that all domains use alike, up to
        sqrt(D - 1) for one that only one of D domains uses. NaN for an expert without tokens. It is
        not corrected; `by_chance` is what an expert of this rate shows without any preference.

    Raises:
        LookupError: no routing of this phase, or fewer than two domains.
        ValueError: several phases and none asked for.

    Source: arXiv 2505.16056, domain specialisation.
    """
    groups = labelled_tokens(choices(trace, phase=phase, is_probe=is_probe), "domain", 1)
    rate, tokens = _rates(groups)
    mean = rate.mean(-1)
    used = mean > 0
    whole = np.where(used, mean, 1.0)
    count = np.maximum(tokens, 1.0)[:, None, :]
    pooled = ((rate * count).sum(-1) / count.sum(-1))[..., None]
    noise = (pooled * (1 - pooled) / count).mean(-1) * (1 - 1 / len(groups.names))
    chance = measured(("layer", "expert"), np.where(used, np.sqrt(noise) / whole, np.nan), "variation by chance", "1")
    return labelled(
        np.where(used, rate.std(-1) / whole, np.nan),
        ("layer", "expert"),
        name="domain_variation",
        long_name="coefficient of variation over domains of the activation rate",
        units="1",
        over=groups.over,
        coords=groups.found.coords("layer", "expert") | {"by_chance": chance},
    )


def top_token_ids(
    trace: Trace,
    *,
    count: int = 15,
    min_count: int = 20,
    phase: Phase | None = None,
    is_probe: bool = False,
    seed: int = 0,
) -> xr.DataArray:
    """The token ids that go most exclusively to each expert, as the expert of largest weight.

    Their mean, `.mean("rank")`, is the expert's vocabulary specialisation.

    Args:
        count: ids per expert.
        min_count: ids of fewer tokens are left out.
        phase: what the model was doing; by default the only one recorded.
        is_probe: take the fixed probe text instead.
        seed: of the shuffling behind `by_chance`.

    Returns:
        Share of an id's tokens that go to the expert [1] over `layer`, `expert`, `rank`, largest
        first; NaN for experts that a layer does not have. `token_id` and `piece` say which id it is.
        The best of many ids are high by luck, too: `by_chance` is the mean over ranks with the ids
        shuffled among the tokens.

    Raises:
        LookupError: no routing of this phase, or no id that is frequent enough.
        ValueError: several phases and none asked for.

    Source: arXiv 2505.16056, vocabulary specialisation: first choice, 15 ids, 20 tokens, of the input.
    """
    at_least("count", count, 1)
    found = choices(trace, phase=phase, is_probe=is_probe).first()
    groups = labelled_tokens(found, "token_id", min_count, at_least_labels=1)
    found = groups.found
    ranks = min(count, len(groups.names))
    generator = np.random.default_rng(seed)
    parts = [_best(groups, layer, ranks, generator) for layer in range(len(found.layer))]
    share, index, chance = (np.stack(part) for part in zip(*parts, strict=True))
    _, first = np.unique(found.token("token_id"), return_index=True)
    dims = ("layer", "expert", "rank")
    coords = found.coords("layer", "expert") | {
        "rank": np.arange(ranks),
        "token_id": (dims, groups.names[index]),
        "piece": (dims, found.token("piece")[first][index]),
        "by_chance": measured(dims[:2], np.where(found.exists, chance, np.nan), "mean over ranks by chance", "1"),
    }
    return labelled(
        np.where(found.exists[..., None], share, np.nan),
        dims,
        name="top_token_ids",
        long_name="share of a token id that goes to the expert first",
        units="1",
        over=groups.over,
        coords=coords,
    )


def _rates(groups: Groups) -> tuple[Float[np.ndarray, "L Z G"], Float[np.ndarray, "L G"]]:
    """Share of each domain's tokens that ask for each expert, and the number of these tokens."""
    found, domains = groups.found, len(groups.names)
    tokens = np.stack([np.bincount(groups.label[routed], minlength=domains) for routed in found.is_routed])
    asked = np.stack([_counts(groups.label, expert, domains, found.width) for expert in found.distinct])
    known = found.exists[:, :, None] & (tokens > 0)[:, None, :]
    rate = np.where(known, asked.swapaxes(1, 2) / np.maximum(tokens, 1)[:, None, :], np.nan)
    return rate, tokens.astype(np.float64)


def _best(
    groups: Groups, layer: int, ranks: int, generator: np.random.Generator
) -> tuple[Float[np.ndarray, "Z ranks"], Int[np.ndarray, "Z ranks"], Float[np.ndarray, "Z"]]:
    """The ids that go most to each expert: their shares, which they are, and the mean share by chance."""
    expert = groups.found.expert[layer]

    def shares(of: Int[np.ndarray, "T"]) -> Float[np.ndarray, "V Z"]:
        counts = np.bincount(groups.label, minlength=len(groups.names))
        return _counts(of, expert, len(groups.names), groups.found.width) / counts[:, None]

    table = shares(groups.label)
    # sort is stable: of ids with equal shares the smaller stands first.
    index = np.argsort(-table, axis=0, kind="stable")[:ranks]
    drawn = [shares(generator.permutation(groups.label)) for _ in range(_SHUFFLES)]
    chance = np.mean([np.sort(one, axis=0)[-ranks:].mean(0) for one in drawn], axis=0)
    return np.take_along_axis(table, index, 0).T, index.T, chance


def _counts(
    label: Int[np.ndarray, "T"], expert: Int[np.ndarray, "T K"], labels: int, width: int
) -> Float[np.ndarray, "labels Z"]:
    """Tokens of each label at each expert."""
    token, slot = np.nonzero(expert >= 0)
    code = label[token] * width + expert[token, slot]
    return np.bincount(code, minlength=labels * width).reshape(labels, width).astype(np.float64)
