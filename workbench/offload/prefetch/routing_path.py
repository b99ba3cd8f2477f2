"""A network that was trained on recorded routings reads the tokens and says their way through all layers."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.check import at_least
from workbench.offload.path_predictor import load_path_predictor
from workbench.offload.policy import CacheShape
from workbench.offload.prefetcher import Guess, Observation, Prefetcher

__all__ = ["RoutingPath"]


class RoutingPath(Prefetcher):
    """Guess the layers to come from the ids of the running pass's tokens.

    Each token is predicted to ask for the `top_k` surest experts of a layer. How sure a guess is: the
    probability that any token asks for it, times `1 - (layer - running layer) / layers`, so that the
    nearer layer comes first as the engine of the paper loads them (the factor is ours). Before a pass, where one is
    told of it, all layers are guessed, the first with its probability; else the first layer has decided when the
    tokens get here. Later tokens are not guessed: they do not exist yet. Without token ids nothing is guessed.

    The tokens before are those of the earlier passes while each pass has one token. A pass of many is read as one
    text when it begins a sequence, and token by token otherwise: they belong to several texts.

    Args:
        folder: where `train_path_predictor` saved it.
        reach: layers ahead that are guessed; 0 takes all.

    Raises:
        FileNotFoundError: no predictor in the folder.
        ValueError: a damaged one, or one of another model.

    Source: arXiv 2410.17954, routing path predictor; how its batch of sequences is read is adapted.
    """

    needs_tokens = True

    def __init__(self, shape: CacheShape, *, folder: str, reach: int = 0):
        super().__init__(shape)
        at_least("reach", reach, 0)
        self.predictor = load_path_predictor(folder)
        found = (self.predictor.num_layers, self.predictor.num_experts)
        if found != (shape.num_layers, shape.num_experts):
            raise ValueError(
                f"the path predictor in {folder} is for {found[0]} layers of {found[1]} experts, and this model has "
                f"{shape.num_layers} of {shape.num_experts}; train one on a trace of this model"
            )
        self.reach = reach or shape.num_layers
        self._past: list[int] | None = []
        self._layer = shape.num_layers
        self._wanted = torch.zeros(found)
        self._is_told = False

    def begin_sequence(self) -> None:
        """No tokens came before."""
        self._past, self._layer = [], self.shape.num_layers

    def begin_pass(self, token_ids: Sequence[int]) -> Sequence[Guess]:
        """All layers of the pass; the layers that ask need not bring its tokens again."""
        self._is_told = True
        self._read(token_ids)
        return self._coming(0, 0)

    def learn(self, seen: Observation) -> None:
        """The first layer of a pass brings its tokens, where nobody told them before."""
        if seen.layer <= self._layer and not self._is_told:
            self._read(seen.token_ids or ())
        self._layer = seen.layer

    def predict(self, seen: Observation) -> Sequence[Guess]:
        """The experts on the way of any token, the surest and nearest first."""
        return self._coming(seen.layer + 1, 1)

    def _read(self, token_ids: Sequence[int]) -> None:
        self._wanted.zero_()
        if token_ids:
            self._wanted = self._any_token(self._windows(tuple(token_ids)))

    def _coming(self, first: int, distance: int) -> Sequence[Guess]:
        """Guesses of the layers from the first on, which is so far away."""
        layers = self.shape.num_layers
        coming = self._wanted[first : first + self.reach]
        nearness = 1 - torch.arange(distance, distance + len(coming)) / layers
        priority = (coming * nearness[:, None]).flatten()
        pages = priority.nonzero().flatten()
        # the sort is stable: among equals the smaller page comes first.
        sure, order = priority[pages].sort(descending=True, stable=True)
        base = first * self.shape.num_experts
        return list(zip((pages[order] + base).tolist(), sure.tolist(), strict=True))

    def _windows(self, ids: tuple[int, ...]) -> list[list[int]]:
        """Every token and those before it, the newest first; -1 for none."""
        window, past = self.predictor.window, self._past
        if len(ids) > 1 and past != []:
            self._past = None
            return [[token, *[-1] * (window - 1)] for token in ids]
        text = [*(past or []), *ids]
        self._past = text[-window:]
        padded = [-1] * window + text
        return [padded[: len(padded) - back][: -window - 1 : -1] for back in range(len(ids) - 1, -1, -1)]

    @torch.no_grad()
    def _any_token(self, windows: list[list[int]]) -> Float[Tensor, "L E"]:
        ids = torch.tensor(windows)
        rows = torch.where(ids >= 0, self.predictor.rows(ids.clamp(min=0).flatten()).view_as(ids), 0)
        probability = self.predictor(rows).sigmoid()
        best = probability.topk(self.shape.top_k, -1).indices
        on_path = torch.zeros_like(probability).scatter_(-1, best, probability.gather(-1, best))
        wanted: Float[Tensor, "L E"] = 1 - (1 - on_path).prod(0)
        return wanted
