"""What the matrices of experts multiply on a text: how a format knows which of their columns matter."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.experts import Experts
from workbench.core.sparse import SparseRouting
from workbench.data.catalog import load_tokenizer
from workbench.model.folders import tokenizer_folder
from workbench.model.transformer import Transformer

__all__ = ["Calibration", "calibrate", "calibration_name", "calibration_tokens"]

# The paper's; keeps a column apart from nothing that no token of the text has reached.
_LEAST = 1e-3
# An expert that saw so many tokens is believed by half; the paper has no experts that see few.
_DOUBT_TOKENS = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """How large the inputs of every expert are on a text. Measured, and of this text only.

    Args:
        name: of the text.
        tokens: rows that every expert computed, layer after layer.
        scales: of every expert, for each of its tensors in turn, the size of every input [root mean square over
            tokens]; None for a tensor that is no matrix.
    """

    name: str
    tokens: tuple[int, ...]
    scales: Sequence[Sequence[Tensor | None]]


def calibration_tokens(given: str | Sequence[int] | None, folder: Path | None) -> tuple[int, ...] | None:
    """The tokens of what `OffloadConfig.calibration` names.

    Args:
        folder: of the model, with its tokenizer; None for a model in memory.

    Raises:
        ValueError: a text without a tokenizer, one that is not UTF-8, or fewer than two tokens.
        OSError: a text that cannot be read.
    """
    if given is None:
        return None
    tokens = _read(Path(given), folder) if isinstance(given, str) else tuple(given)
    at_least("tokens of a calibration text", len(tokens), 2)
    return tokens


def calibration_name(token_ids: Sequence[int]) -> str:
    """A short name that changes with any token."""
    return sha256(repr(list(token_ids)).encode()).hexdigest()[:16]


@torch.no_grad()
def calibrate(model: Transformer, token_ids: Sequence[int], *, window: int = 512) -> Calibration:
    """Run a text through a model and measure what its experts multiply. Every expert must be in memory.

    The size of an input is the mean over windows of its norm along the tokens of a window, as in the paper, then
    divided by what it would be for inputs of 1, so that experts that see many tokens and few can be compared. What
    the layer gives to its experts is measured over all tokens of the layer, for all of them alike. What an expert
    makes inside is its own, drawn towards its mean where few tokens were seen.

    Args:
        model: is read only.
        window: tokens that are read together; each begins anew.

    Raises:
        ValueError: experts that do not say what they multiply, or a router that merges experts.

    Source: arXiv 2410.23918, section 3 (activation-aware scaling) and its released code. Means over the experts of a
        layer and the doubt about few tokens are ours.
    """
    # the model may be in use: only its twin listens.
    twin = Transformer(model.config).eval()
    twin.load_state_dict(model.state_dict(), assign=True)
    twin.to(model.device)
    layers = list(twin.moe_layers())
    heard = [_Listening(layer.experts) for layer in layers]
    for layer, listening in zip(layers, heard, strict=True):
        layer.experts = listening
    window = min(window, model.config.max_positions)
    for first in range(0, len(token_ids), window):
        twin(torch.tensor([token_ids[first : first + window]], device=model.device))
        for listening in heard:
            listening.end_window()
    return Calibration(
        name=calibration_name(token_ids),
        tokens=tuple(count for listening in heard for count in listening.counts),
        scales=[scales for listening in heard for scales in listening.scales()],
    )


@final
class _Listening(Experts):
    """A layer's experts, and how large what they multiply was.

    Squares are summed for each expert and tensor of a window; those of what the layer gives go by expert -1.
    """

    def __init__(self, body: Experts):
        super().__init__(body.num_experts)
        self.body = body
        self.counts = [0] * body.num_experts
        self._squares: dict[tuple[int, int], Tensor] = {}
        self._rows: dict[int, int] = defaultdict(int)
        self._norms: dict[tuple[int, int], Tensor] = {}
        self._roots: dict[int, float] = defaultdict(float)
        self._is_given: list[bool | None] = []
        self._windows = 0

    def tensors(self) -> tuple[Any, ...]:
        return self.body.tensors()

    def run(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "T D"]:
        self._listen(tensors, x, plan)
        return self.body.run(tensors, x, plan, context)

    def unweighted(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "N D"]:
        self._listen(tensors, x, plan)
        return self.body.unweighted(tensors, x, plan, context)

    def _listen(self, tensors: tuple[Any, ...], x: Tensor, plan: SparseRouting) -> None:
        if plan.num_experts != self.num_experts:
            raise ValueError(
                f"calibration measures experts one by one, and this router asks for {plan.num_experts} merged ones of "
                f"{self.num_experts}; leave calibration out"
            )
        self._add(-1, 0, x.float())
        self._rows[-1] += len(x)
        rows, start = x[plan.rows], 0
        for expert, count in enumerate(plan.counts.tolist()):
            own, start = rows[start : start + count].float(), start + count
            inputs = self.body.inputs(tuple(tensor[expert].float() for tensor in tensors), own)
            if len(inputs) != len(tensors):
                raise ValueError(
                    f"experts must say what each of their {len(tensors)} tensors multiplies to be calibrated, and "
                    f"{type(self.body).__name__} does not; leave calibration out"
                )
            self._is_given = [None if one is None else one is own for one in inputs]
            self.counts[expert] += count
            self._rows[expert] += count
            for place, one in enumerate(inputs):
                if one is not None and one is not own:
                    self._add(expert, place, one)

    def _add(self, expert: int, place: int, inputs: Tensor) -> None:
        squares = inputs.double().square().sum(0)
        before = self._squares.get((expert, place))
        self._squares[expert, place] = squares if before is None else before + squares

    def end_window(self) -> None:
        """The window's norms join those before."""
        for key, squares in self._squares.items():
            norm = squares.sqrt()
            self._norms[key] = self._norms[key] + norm if key in self._norms else norm
        for expert, rows in self._rows.items():
            self._roots[expert] += rows**0.5
        self._squares.clear()
        self._rows.clear()
        self._windows += 1

    def scales(self) -> list[list[Tensor | None]]:
        """The size of every input, for each expert and tensor."""
        if not self._is_given:
            # no token of the text came to any expert of the layer.
            return [[None] * len(self.tensors()) for _ in range(self.num_experts)]
        given = self._size(-1, 0)
        of_tensor: list[Sequence[Tensor | None]] = []
        for place, is_given in enumerate(self._is_given):
            all_alike: Tensor | None = given if is_given else None
            of_tensor.append(self._own(place) if is_given is False else [all_alike] * self.num_experts)
        return [list(of_expert) for of_expert in zip(*of_tensor, strict=True)]

    def _own(self, place: int) -> list[Tensor]:
        """Inputs of a tensor that every expert makes itself."""
        sizes = [self._size(expert, place) if self.counts[expert] else None for expert in range(self.num_experts)]
        seen = [size.mean() for size in sizes if size is not None]
        usual = torch.stack(seen).mean() if seen else torch.tensor(1.0)
        like = self._norms[next(key for key in self._norms if key[1] == place and key[0] >= 0)].float().cpu()
        found = []
        for size, count in zip(sizes, self.counts, strict=True):
            if size is None:
                found.append(usual.expand(like.shape).clone())
            else:
                found.append((count * size + _DOUBT_TOKENS * size.mean()) / (count + _DOUBT_TOKENS))
        return found

    def _size(self, expert: int, place: int) -> Tensor:
        mean = self._norms[expert, place] / self._windows + _LEAST
        return (mean / (self._roots[expert] / self._windows)).float().cpu()


def _read(path: Path, folder: Path | None) -> tuple[int, ...]:
    own = None if folder is None else tokenizer_folder(folder)
    if own is None:
        raise ValueError(
            f"the calibration text {path} needs the tokenizer of the model, and there is none "
            f"{'with a model in memory' if folder is None else f'in {folder}'}; give its token ids instead"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text; byte {error.start} is not: convert it first") from error
    return tuple(load_tokenizer(own).encode(text))
