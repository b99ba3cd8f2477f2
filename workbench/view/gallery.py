"""Every router on the same text: its paper, what it does, and which expert each token goes to."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, final

import torch

from workbench.core.records import Batch, Output
from workbench.core.router import Card
from workbench.core.routing import Routing
from workbench.core.spec import Spec
from workbench.routers import ROUTERS
from workbench.train.forward import forward_batch, training_context
from workbench.train.trainer import Trainer
from workbench.view.theme import okabe_ito

__all__ = ["Exhibit", "Gallery", "gallery"]

_TOKENS = 48


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Exhibit:
    """One router with its paper and its decision about the text.

    Args:
        name: public name.
        sees_future: decides with later tokens in view.
        loss: of the last training step under it [nat/token]; NaN where it could not be tried.
        pieces: text of the tokens.
        routing: in one layer; None where the router was refused.
        refused: why, in words.
    """

    name: str
    card: Card
    sees_future: bool
    loss: float
    pieces: Sequence[str]
    routing: Routing | None
    refused: str = ""

    @property
    def experts_per_token(self) -> float:
        """Assignments of a token on average, extra experts included."""
        return 0.0 if self.routing is None else int(self.routing.counts.sum()) / max(1, self.routing.num_tokens)

    def html(self) -> str:
        """A card with the paper, the numbers and the tokens in the colours of their experts."""
        paper = f"arXiv {self.card.arxiv}" if self.card.arxiv else "no paper"
        year = f", {self.card.year}" if self.card.year else ""
        marks = " · sees later tokens" if self.sees_future else ""
        numbers = f"{self.experts_per_token:.2f} experts per token · loss {self.loss:.3f} nat/token{marks}"
        body = _strip(self.pieces, self.routing) if self.routing is not None else escape(self.refused)
        return (
            '<section style="border:1px solid #8886;border-radius:8px;padding:10px 14px;margin:0 0 10px">'
            f'<div><b style="font-size:15px">{escape(self.name)}</b> '
            f'<span style="opacity:.75">{escape(self.card.title)} ({paper}{year})</span></div>'
            f'<div style="opacity:.75;font-size:13px">{escape(self.card.changes)}</div>'
            f'<div style="font-size:13px">{numbers}</div>'
            f'<div style="margin-top:6px;line-height:2.1;font-family:monospace">{body}</div></section>'
        )


@final
class Gallery:
    """The exhibits; a notebook shows them one below the other.

    Args:
        exhibits: one per router.
        layer: index of the MoE layer that is shown.
        steps: training steps that each router had.
    """

    def __init__(self, exhibits: Sequence[Exhibit], *, layer: int, steps: int):
        self.exhibits, self.layer, self.steps = tuple(exhibits), layer, steps

    def __len__(self) -> int:
        return len(self.exhibits)

    def __iter__(self) -> Iterator[Exhibit]:
        return iter(self.exhibits)

    def __repr__(self) -> str:
        return f"Gallery({len(self)} routers, layer {self.layer}, {self.steps} steps each)"

    def _repr_html_(self) -> str:
        note = (
            f"Layer {self.layer}. Every router took over the same trained model for {self.steps} steps. The number is "
            "the expert with the largest weight, colours repeat after eight; a small + counts further experts, "
            "and a token on white went to none. Loss is that of the last of these steps: too few for a ranking."
        )
        head = f'<p style="max-width:80ch;font-size:13px;opacity:.8">{escape(note)}</p>'
        return head + "".join(exhibit.html() for exhibit in self.exhibits)


def gallery(
    trainer: Trainer,
    text: str,
    *,
    routers: Sequence[str] | None = None,
    steps: int = 3,
    layer: int = 0,
    on_router: Callable[[str], Any] = lambda name: None,
) -> Gallery:
    """Each router takes over the same model for a few steps and routes the same text; the model is left as it was.

    Args:
        trainer: its model is where all begin; it is rewound bit for bit after each.
        text: its first tokens are shown.
        routers: names; None takes all that are registered.
        on_router: called with each name before its turn.

    Raises:
        LookupError: unknown router.
        ValueError: an empty text, or no such layer.
    """
    names = list(routers or ROUTERS.names())
    for name in names:
        ROUTERS.get(name)
    token_ids = trainer.batches.tokenizer.encode(text)[:_TOKENS]
    if not token_ids:
        raise ValueError("expected at least one token of text, got an empty text")
    if not 0 <= layer < len(trainer.model.config.moe_layers):
        raise ValueError(f"layer must be between 0 and {len(trainer.model.config.moe_layers) - 1}, got {layer}")
    exhibits = []
    for name in names:
        on_router(name)
        exhibits.append(_exhibit(trainer, name, token_ids, steps, layer))
    return Gallery(exhibits, layer=layer, steps=steps)


def _exhibit(trainer: Trainer, name: str, token_ids: list[int], steps: int, layer: int) -> Exhibit:
    cls = ROUTERS.get(name)
    pieces = [trainer.batches.tokenizer.piece(token) for token in token_ids]
    trainer.swap(Spec(name), rebuild_experts=True)
    try:
        reports = list(trainer.run(steps))
        output = _routed(trainer, token_ids)
        sees_future = not trainer.model.is_causal
    finally:
        trainer.rewind()
    site = next(site for site in output.sites if site.layer == layer)
    loss = reports[-1].loss if reports else float("nan")
    return Exhibit(name=name, card=cls.card, sees_future=sees_future, loss=loss, pieces=pieces, routing=site.routing)


@torch.no_grad()
def _routed(trainer: Trainer, token_ids: list[int]) -> Output:
    batch = Batch(token_ids=torch.tensor([token_ids]))
    context = training_context(trainer.config, trainer.step).at(phase="prefill")
    return forward_batch(trainer.model, batch, context, trainer.precision)


def _strip(pieces: Sequence[str], routing: Routing) -> str:
    flat = routing.assignments()
    share = torch.zeros(routing.num_tokens, routing.num_experts)
    place = (flat.token, flat.expert)
    share = share.index_put(place, flat.weight.detach().abs() * flat.kept, accumulate=True)
    is_there = torch.zeros(share.shape, dtype=torch.bool).index_put(place, flat.kept)
    # a kept expert of weight 0 is still there, and is shown after all that weigh.
    best = torch.where(is_there, share + 1e-9, share).argmax(-1).tolist()
    counts = is_there.sum(-1).tolist()
    return " ".join(_token(piece, best[i], counts[i]) for i, piece in enumerate(pieces))


def _token(piece: str, expert: int, count: int) -> str:
    text = escape(piece.replace("\n", "⏎").replace(" ", "·"))
    if count == 0:
        return f'<span style="border:1px dashed #888;border-radius:4px;padding:1px 3px">{text}</span>'
    colours = okabe_ito("light")
    colour = colours[expert % len(colours)]
    ink = "#fff" if _is_dark(colour) else "#000"
    more = f"<sup>+{count - 1}</sup>" if count > 1 else ""
    return (
        f'<span style="background:{colour};color:{ink};border-radius:4px;padding:1px 3px" '
        f'title="expert {expert}, {count} in all">{text}<sub>{expert}</sub>{more}</span>'
    )


def _is_dark(colour: str) -> bool:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140
