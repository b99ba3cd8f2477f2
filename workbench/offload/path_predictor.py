"""A small network that reads token ids and says which experts of all layers they will ask for."""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from workbench.core.check import at_least, within
from workbench.offload.replay.recorded import requests_of
from workbench.trace.schema import Trace

__all__ = ["PathPredictor", "PathScores", "load_path_predictor", "train_path_predictor"]

_WEIGHTS, _ABOUT = "path_predictor.safetensors", "path_predictor.json"
_UNKNOWN = 0


@dataclass(frozen=True, kw_only=True)
class PathScores:
    """How well paths are predicted on tokens that were held out, beside predictors that know less.

    Losses are binary cross-entropies per expert and layer [nat].

    Args:
        k: experts of a layer that are guessed for a token.
        recall: share of the experts asked for that are among the k surest [1].
        precision: share of the experts that are more likely asked for than not, and are [1]; NaN if there are none.
        loss: of the predictor.
        trivial_loss: of who knows only how many experts a token asks for: H(k / experts).
        popular_loss: of who knows how often each expert is asked for, whatever the token.
        popular_recall: share of the experts asked for that are among the k most popular [1].
        trained: tokens that were learned from.
        held_out: tokens behind these numbers.
    """

    k: int
    recall: float
    precision: float
    loss: float
    trivial_loss: float
    popular_loss: float
    popular_recall: float
    trained: int
    held_out: int

    def __str__(self) -> str:
        return (
            f"recall at {self.k}: {self.recall:.3f} (most popular: {self.popular_recall:.3f}), precision "
            f"{self.precision:.3f}, loss {self.loss:.4f} nat (trivial {self.trivial_loss:.4f}, most popular "
            f"{self.popular_loss:.4f}) on {self.held_out:,} held-out tokens"
        )


@final
class PathPredictor(nn.Module):
    """Logits of every expert of every layer, from a token and the few before it.

    Args:
        known: token ids with a row of their own in the table, ascending; all others share one.
        window: tokens that are looked at: the token itself and those before it.
        width: of a token's row.
        hidden: units between the tokens and the experts.
    """

    def __init__(
        self, known: Int[Tensor, "V"], *, window: int, num_layers: int, num_experts: int, width: int, hidden: int
    ):
        super().__init__()
        self.window, self.num_layers, self.num_experts = window, num_layers, num_experts
        self.known: Tensor
        self.register_buffer("known", known)
        self.table = nn.Embedding(len(known) + 1, width)
        self.mixed = nn.Linear(window * width, hidden)
        self.head = nn.Linear(hidden, num_layers * num_experts)

    def rows(self, token_id: Int[Tensor, "T"]) -> Int[Tensor, "T"]:
        """The row of every token in the table."""
        place = torch.searchsorted(self.known, token_id).clamp(max=max(len(self.known) - 1, 0))
        return torch.where(self.known[place] == token_id, place + 1, _UNKNOWN)

    def forward(self, rows: Int[Tensor, "T W"]) -> Float[Tensor, "T L E"]:
        """Logits, from the rows of each token's window, itself first."""
        seen = self.table(rows).flatten(1)
        logits: Tensor = self.head(nn.functional.gelu(self.mixed(seen)))
        return logits.view(len(rows), self.num_layers, self.num_experts)


def train_path_predictor(
    trace: Trace,
    folder: Path | str,
    *,
    window: int = 4,
    width: int = 64,
    hidden: int = 128,
    held_out: float = 0.2,
    epochs: int = 20,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> PathScores:
    """Learn a predictor from a recorded routing, and save it.

    It is good for the model and the kind of text that were recorded; train anew when the router has changed.
    The held-out tokens are the last ones of the trace, and are not learned from.

    Args:
        folder: where it goes: the argument `folder` of the prefetcher.
        window: tokens that are looked at: the token itself and those before it.
        held_out: share of the tokens that the scores are counted on [1].

    Returns:
        Scores on the held-out tokens; they are saved with the weights.

    Raises:
        LookupError: the trace holds no routing of a text that was read or written.
        ValueError: too few tokens, or a number out of range.
        OSError: the folder cannot be written.

    Source: arXiv 2410.17954, the routing path predictor. That one is a T5 of 7 MB over the whole sequence; its
        depth, optimiser and learning rate are not known to us. This one looks at a few tokens before, which is
        what a running engine knows of any pass, and has weights of its own size, rate and number of epochs.
    """
    at_least("window", window, 1)
    at_least("epochs", epochs, 1)
    within("held_out", held_out, 0, 1)
    ids, windows, wanted, top_k = _examples(trace, window)
    train = round(len(ids) * (1 - held_out))
    if not 0 < train < len(ids):
        raise ValueError(
            f"held_out={held_out} of {len(ids)} tokens leaves {train} to learn from and {len(ids) - train} to judge "
            "by; both must be more than none: use another share or a longer trace"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        known = torch.unique(ids[:train])
        layers, experts = wanted.shape[1:]
        shape = {"num_layers": layers, "num_experts": experts, "width": width, "hidden": hidden}
        model = PathPredictor(known, window=window, **shape)
        popular = wanted[:train].mean(0).clamp(1e-4, 1 - 1e-4).logit()
        rows = torch.where(windows >= 0, model.rows(windows.clamp(min=0).flatten()).view_as(windows), _UNKNOWN)
        _fit(model, popular, rows[:train], wanted[:train], epochs, batch_size, learning_rate)
    scores = _scores(model, popular, rows[train:], wanted[train:], top_k, trained=train)
    _save(model, Path(folder), {"window": window, **shape, "scores": asdict(scores)})
    return scores


def load_path_predictor(folder: Path | str) -> PathPredictor:
    """The predictor that `train_path_predictor` saved.

    Raises:
        FileNotFoundError: no predictor there.
        ValueError: a damaged one.
    """
    folder = Path(folder)
    missing = [name for name in (_WEIGHTS, _ABOUT) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} holds no path predictor ({' and '.join(missing)} missing); make one with train_path_predictor"
        )
    try:
        about, state = json.loads((folder / _ABOUT).read_text()), load_file(folder / _WEIGHTS)
        sizes = {key: about[key] for key in ("window", "num_layers", "num_experts", "width", "hidden")}
        model = PathPredictor(state["known"], **sizes)
        model.load_state_dict(state)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"the path predictor in {folder} is damaged ({error}); train it again") from error
    return model.eval()


def _save(model: PathPredictor, folder: Path, about: Mapping[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / _WEIGHTS)
    (folder / _ABOUT).write_text(json.dumps(about, indent=1))


def _examples(trace: Trace, window: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """Token ids, those of every token's window (itself first, -1 for none), experts asked for, and the most of them."""
    requests = requests_of(trace, passes="token")
    routing = trace.moe.group("routing")
    # the tokens that requests are made of.
    is_text = np.isin(routing["phase"].values, ("prefill", "decode")) & ~routing["is_probe"].values
    ids = torch.from_numpy(routing["token_id"].values[is_text].astype(np.int64))
    wanted = torch.zeros(len(ids), requests.num_pages)
    wanted[np.repeat(requests.token, np.diff(requests.start)), requests.page.astype(np.int64)] = 1.0
    before = _before(routing["sequence"].values[is_text], routing["position"].values[is_text])
    place, windows = torch.arange(len(ids)), []
    for _ in range(window):
        windows.append(torch.where(place >= 0, ids[place], -1))
        place = torch.where(place >= 0, before[place], -1)
    return (
        ids,
        torch.stack(windows, 1),
        wanted.view(len(ids), requests.num_layers, requests.num_experts),
        requests.top_k,
    )


def _before(sequence: NDArray[np.int32], position: NDArray[np.int32]) -> Tensor:
    """Where the token before each one is, -1 where there is none."""
    before = np.full(len(sequence), -1, np.int64)
    order = np.lexsort((position, sequence))
    one, next_one = order[:-1], order[1:]
    follows = (sequence[next_one] == sequence[one]) & (position[next_one] == position[one] + 1)
    before[next_one[follows]] = one[follows]
    return torch.from_numpy(before)


def _fit(
    model: PathPredictor, popular: Tensor, rows: Tensor, wanted: Tensor, epochs: int, size: int, rate: float
) -> None:
    """Minimise the binary cross-entropy, starting from the most popular experts."""
    with torch.no_grad():
        model.head.bias.copy_(popular.flatten())
        model.head.weight.zero_()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    # the last tenth says which epoch generalises best: where there is nothing to learn, the state before the first.
    learned = max(1, len(rows) - max(1, len(rows) // 10))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * -(-learned // size))
    least, best = _loss(model, rows[learned:], wanted[learned:]), deepcopy(model.state_dict())
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(learned), size):
            # some tokens are hidden, and some pasts, so that the row of unknown ones learns too.
            hidden = torch.rand(len(chosen), rows.shape[1]) < 0.05
            hidden[:, 1:] |= torch.rand(len(chosen), 1) < 0.1
            logits = model(rows[chosen].masked_fill(hidden, _UNKNOWN))
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.binary_cross_entropy_with_logits(logits, wanted[chosen]))
            optimizer.step()
            schedule.step()
        if (loss := _loss(model, rows[learned:], wanted[learned:])) < least:
            least, best = loss, deepcopy(model.state_dict())
    model.load_state_dict(best)


@torch.no_grad()
def _loss(model: PathPredictor, rows: Tensor, wanted: Tensor) -> float:
    return float(nn.functional.binary_cross_entropy_with_logits(model(rows), wanted))


@torch.no_grad()
def _scores(model: PathPredictor, popular: Tensor, rows: Tensor, wanted: Tensor, k: int, *, trained: int) -> PathScores:
    loss = nn.functional.binary_cross_entropy_with_logits
    logits = torch.cat([model(part) for part in torch.split(rows, 4096)])
    beside = popular.expand_as(wanted)
    density = wanted.mean(dtype=torch.float64)
    likely = logits > 0
    return PathScores(
        k=k,
        recall=_recall(logits, wanted, k),
        precision=float((wanted * likely).sum() / likely.sum()),
        loss=float(loss(logits, wanted)),
        trivial_loss=float(-(torch.xlogy(density, density) + torch.xlogy(1 - density, 1 - density))),
        popular_loss=float(loss(beside, wanted)),
        popular_recall=_recall(beside, wanted, k),
        trained=trained,
        held_out=len(rows),
    )


def _recall(logits: Tensor, wanted: Tensor, k: int) -> float:
    return float(wanted.gather(-1, logits.topk(k, -1).indices).sum() / wanted.sum())
