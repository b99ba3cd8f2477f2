"""Links by name, for predictions about machines that are not at hand: nominal speeds, each with its source."""

import re
from collections.abc import Mapping

from workbench.core.check import did_you_mean
from workbench.offload.config import budget_bytes
from workbench.offload.tiers.cost import LinkCost

__all__ = ["KNOWN_LINKS", "links_of"]

_SHARE = 0.75
_OBSERVED = "three quarters of it, as 12 of 16 GB/s that arXiv 2104.07857 observed of PCIe 3.0"
_START = 1e-4
_STARTS = "100 us for each read (reports of models read from disks say 100 to 122)"


def _pcie(generation: int, lanes: int, transfers: float, *, starts: str = "", start: float = 0.0) -> LinkCost:
    nominal = transfers * 1e9 * lanes * 128 / 130 / 8
    said = f"PCIe {generation}.0 x{lanes}, {transfers:g} GT/s in 128b/130b: {nominal / 1e9:.1f} GB/s nominal"
    return LinkCost(
        start_seconds=start,
        bytes_per_second=_SHARE * nominal,
        source="; ".join(filter(None, (f"predicted: {said}", _OBSERVED, starts))),
    )


KNOWN_LINKS: Mapping[str, LinkCost] = {
    "pcie3": _pcie(3, 16, 8),
    "pcie4": _pcie(4, 16, 16),
    "pcie5": _pcie(5, 16, 32),
    "nvme": _pcie(4, 4, 16, starts=_STARTS, start=_START),
    "sata": LinkCost(
        start_seconds=_START,
        bytes_per_second=560e6,
        source=f"predicted: SATA 6 Gb/s, 560 MB/s read by the data sheet of a drive (Kingston DC600M); {_STARTS}",
    ),
}
"""Between host and device (`pcie3`, `pcie4`, `pcie5`), and from a disk (`nvme`, `sata`).

None of them was measured here: `measure_link` measures a link that is at hand.
"""


def links_of(text: str) -> dict[str, LinkCost]:
    """Links from `nvme,2x,4x,3.5GB/s`: names, speeds, and multiples of the speed of the first.

    Raises:
        LookupError: no such name.
        ValueError: no link, a multiple that comes first, or one given twice.
    """
    links: dict[str, LinkCost] = {}
    for name in (piece.strip() for piece in text.split(",")):
        if name in links:
            raise ValueError(f"every link is given once, got {name!r} twice in {text!r}")
        links[name] = _times(links, name) if re.fullmatch(r"\d+(\.\d+)?x", name) else _link(name)
    return links


def _link(name: str) -> LinkCost:
    if name in KNOWN_LINKS:
        return KNOWN_LINKS[name]
    if name.endswith("/s") and "%" not in name:
        speed = budget_bytes(name.removesuffix("/s"), 1)
        return LinkCost(bytes_per_second=speed, source=f"predicted: {name} assumed")
    raise LookupError(
        f"no link is called {name!r}{did_you_mean(name, KNOWN_LINKS)}; there are {', '.join(KNOWN_LINKS)}, speeds as "
        "3.5GB/s, and after the first multiples of it as 2x"
    )


def _times(links: Mapping[str, LinkCost], name: str) -> LinkCost:
    if not links:
        raise ValueError(f"{name} is a multiple of the first link, so one must come before it, as in nvme,{name}")
    first, base = next(iter(links.items()))
    times = float(name.removesuffix("x"))
    if not times > 0:
        raise ValueError(f"a multiple of a link must be above 0, got {name}")
    return LinkCost(
        start_seconds=base.start_seconds,
        bytes_per_second=times * base.bytes_per_second,
        source=f"predicted: {name} the speed of {first}, which is {base.source}",
    )
