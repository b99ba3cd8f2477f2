"""How exactly the experts of an engine are computed: of how many pages each, and which are left out."""

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from workbench.core.check import within
from workbench.core.records import ExpertKey
from workbench.offload.config import OffloadConfig
from workbench.offload.expert_format import ExpertFormat
from workbench.offload.formats import FORMATS
from workbench.offload.precision.levels import share_levels
from workbench.offload.precision.lossy import PrecisionLoss
from workbench.offload.prefetcher import Guess
from workbench.offload.store.encoding import Encoding

__all__ = ["Precision", "format_of"]


@final
class Precision:
    """Which pages an expert is put together from, and what that costs.

    Pages are numbered `(layer * num_experts + expert) * levels + level`. How many an expert gets is settled when
    the engine is made, so that no output depends on what happens to be cached.

    Args:
        encoding: of the store.
        num_experts: of a layer.

    Attributes:
        format: reads pages.
        levels: pages of an expert in the store.
        pages_of: number of pages that each expert is read from, layer after layer.
        skip: assignments below this share of their token's largest weight are not computed [1].
        loss: what it costs on a text; None until it is measured.

    Raises:
        ValueError: numbers of use that do not fit the experts.
    """

    def __init__(self, encoding: Encoding, config: OffloadConfig, *, num_layers: int, num_experts: int):
        self.format: ExpertFormat = encoding.format.build(FORMATS)
        self.levels, self.dense, self.num_experts = encoding.levels, encoding.dense, num_experts
        self.skip = config.skip
        self.loss: PrecisionLoss | None = None
        self._name = encoding.name
        if config.mean_levels is None:
            self.pages_of = [self.levels] * (num_layers * num_experts)
        else:
            self.pages_of = share_levels(encoding.left, config.mean_levels, usage=config.usage)

    @property
    def unit(self) -> str:
        """What is cached, in words."""
        return "experts" if self.levels == 1 else "pages of experts"

    @property
    def is_lossless(self) -> bool:
        """Whether outputs are those of the resident model, bit for bit."""
        return self.format.is_lossless and not self.skip

    def pages(self, layer: int, expert: int) -> range:
        """The pages of an expert, coarse first."""
        number = layer * self.num_experts + expert
        return range(number * self.levels, number * self.levels + self.pages_of[number])

    def most_pages(self, experts: int) -> int:
        """Pages that so many experts of one layer have, at most."""
        layers = range(0, len(self.pages_of), self.num_experts)
        return max(sum(sorted(self.pages_of[low : low + self.num_experts])[-experts:]) for low in layers)

    def key(self, page: int) -> ExpertKey:
        """Layer and expert of a page."""
        return ExpertKey(*divmod(page // self.levels, self.num_experts))

    def slowest(self, tier: NDArray[np.int8]) -> NDArray[np.int8]:
        """The tier of every page -> that of every expert, the slowest of its pages: layers by experts."""
        by_expert = tier.reshape(-1, self.levels)
        is_read = np.arange(self.levels) < np.array(self.pages_of)[:, None]
        slowest: NDArray[np.int8] = np.where(is_read, by_expert, 0).max(-1).astype(np.int8)
        return slowest.reshape(-1, self.num_experts)

    def guesses(self, experts: Sequence[Guess]) -> Sequence[Guess]:
        """Guesses of experts, `layer * num_experts + expert`, as guesses of their pages."""
        if self.levels == 1:
            return experts
        step = self.levels
        return [(one * step + level, sure) for one, sure in experts for level in range(self.pages_of[one])]

    @property
    def name(self) -> str:
        """Format, pages and skipping, in words."""
        name, mean = self._name, sum(self.pages_of) / len(self.pages_of)
        if mean < self.levels:
            name += f" at {mean:.2f} of {self.levels} levels"
        return name + (f", skipping below {self.skip:g}" if self.skip else "")

    def __str__(self) -> str:
        if self.is_lossless:
            return "lossless: outputs are those of the resident model, bit for bit"
        return f"{self.name}: lossy, {'not measured yet' if self.loss is None else self.loss}"


def format_of(config: OffloadConfig) -> ExpertFormat:
    """The format that a configuration names, once everything it says about precision fits together.

    Raises:
        LookupError: unknown format.
        ValueError: an argument that it does not take, or more levels than it has.
    """
    found: ExpertFormat = config.format.build(FORMATS)
    if config.host_compute and not found.is_lossless:
        raise ValueError(
            f"experts compute in the host as they lie there, which those of format {config.format} cannot; "
            "give host_compute or the format, not both"
        )
    if config.calibration is not None and not found.takes_scales:
        names = ", ".join(name for name in FORMATS.names() if FORMATS.get(name).takes_scales)
        raise ValueError(
            f"format {config.format} is the same for every calibration text; leave calibration out, or take one of: "
            f"{names}"
        )
    if config.mean_levels is not None:
        hint = f"{config.format} writes {found.levels} for each expert; give its argument levels"
        within("mean_levels", config.mean_levels, 1, found.levels, hint=hint)
    return found
