"""How a model is offloaded: everything that a person chooses."""

import re
from dataclasses import dataclass, field

from workbench.core.check import at_least
from workbench.core.spec import Spec
from workbench.core.units import human_bytes

__all__ = ["OffloadConfig", "budget_bytes"]

_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_UNITS |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True, kw_only=True)
class OffloadConfig:
    """An offloaded model's options.

    Args:
        budget: of the fast tier, for experts and KV cache together: bytes, or text as `64MiB`, or a share of all
            expert bytes as `25%`.
        policy: who leaves the fast tier; see `POLICIES`.
        prefetch: who is fetched before being asked for; None for nobody; see `PREFETCHERS`.
        threads: that read at the same time, beside the one that waits.
        host_budget: of a tier in the memory of the host, between device and disk, as `budget`; None for no such tier.
        host_policy: who leaves that tier; see `POLICIES`.
        inclusive: an expert that comes up from the host stays there as well, so that it need not be copied down
            again; else no expert is in two tiers.
        host_compute: an expert that lies in the host is computed there where that is cheaper than to move it; see
            `HostRule`. Rounding differs between devices.
        format: how experts are held; see `FORMATS`. All but `exact` are lossy.
        mean_levels: pages that an expert is read from, on average [1], for formats of several levels: more for
            experts that are used more and that lose more; None for all. See `share_levels`.
        usage: how often each expert is used, layer after layer, as `usage_of` counts it; None for alike. As text it
            is a trace, in which it is counted.
        calibration: a text that says which inputs of experts are large, for a format that weighs its errors by them
            (`residual`): the path of a text file, or token ids; None for none. See `calibrate`.
        skip: an expert whose weight is below this share of its token's largest is not computed [1]; 0 computes
            all. See `without_light`.
    """

    budget: int | str = "25%"
    policy: Spec = field(default_factory=lambda: Spec("lru"))
    prefetch: Spec | None = None
    threads: int = 2
    host_budget: int | str | None = None
    host_policy: Spec = field(default_factory=lambda: Spec("lru"))
    inclusive: bool = False
    host_compute: bool = False
    format: Spec = field(default_factory=lambda: Spec("exact"))
    mean_levels: float | None = None
    usage: tuple[float, ...] | None = None
    calibration: str | tuple[int, ...] | None = None
    skip: float = 0.0

    def __post_init__(self) -> None:
        at_least("threads", self.threads, 1)
        # a budget that cannot be read is refused here, not after a conversion.
        budget_bytes(self.budget, 1)
        if self.host_budget is not None:
            budget_bytes(self.host_budget, 1)
        elif self.inclusive or self.host_compute:
            raise ValueError("inclusive and host_compute are about a tier in the host: give a host_budget as well")
        if not 0 <= self.skip < 1:
            raise ValueError(
                f"skip is a share of a token's largest weight, at least 0 and below 1, got {self.skip}; "
                "0 computes every expert"
            )
        if self.usage is not None and self.mean_levels is None:
            raise ValueError("usage says who gets more levels, so it needs mean_levels; give both, or neither")


def budget_bytes(budget: int | str, all_bytes: int) -> int:
    """A budget in bytes.

    Args:
        budget: a number of bytes, or text: `64MiB`, `1.5GB`, `25%`.
        all_bytes: what a share is a share of.

    Raises:
        ValueError: text that is none of these, or nothing above 0.
    """
    if isinstance(budget, int):
        found = float(budget)
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%|[KMGT]?i?B|)\s*", budget, re.IGNORECASE)
        if match is None:
            raise ValueError(f"a budget is bytes, as 64MiB or 1.5GB, or a share of all experts, as 25%; got {budget!r}")
        number, unit = float(match[1]), match[2].upper()
        found = number / 100 * all_bytes if unit == "%" else number * _UNITS[unit]
    if found <= 0:
        raise ValueError(f"a budget must be above 0, got {budget!r} ({human_bytes(found)})")
    return int(found)
