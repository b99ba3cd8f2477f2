"""Text in, text out: prompts to tokens, tokens to text as they come, stop strings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from workbench.data.tokenizer import Tokenizer
from workbench.model.generate import Generated, Sampling, generate
from workbench.model.transformer import Transformer

__all__ = ["Begin", "TextStep", "stream_text", "text_steps"]

Ending = Literal["end token", "stop string"]

Begin = Callable[[list[list[int]], Sampling], Iterator[Generated]]
"""(prompts as tokens, how to draw and where to end) -> the steps of a generation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TextStep:
    """One step of generation, as text.

    Args:
        new: text that this step added to each sequence; empty while a character or a stop string is unfinished.
        ended: why a sequence has ended, None while it goes on.
        generated: the step itself; None for the last one, which only empties what was held back.
    """

    new: tuple[str, ...]
    ended: tuple[Ending | None, ...]
    generated: Generated | None


def stream_text(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    stop: Sequence[str] = (),
    seed: int = 0,
    recompute: bool = False,
) -> Iterator[TextStep]:
    """The text that follows each prompt, as a model of ours generates it; see `text_steps`.

    Args:
        recompute: forward the whole prefix for every token; for routers that are not causal.

    Raises:
        ValueError: as `text_steps`, or a router that cannot generate.
    """

    def begin(token_ids: list[list[int]], endings: Sampling) -> Iterator[Generated]:
        return generate(model, token_ids, endings, seed=seed, recompute=recompute)

    return text_steps(begin, tokenizer, prompts, sampling, vocab_size=model.config.vocab_size, stop=stop)


def text_steps(
    begin: Begin,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    vocab_size: int,
    stop: Sequence[str] = (),
) -> Iterator[TextStep]:
    """The text that follows each prompt, as it is generated.

    Args:
        begin: generates tokens after prompts of tokens.
        vocab_size: tokens that the model knows.
        stop: a sequence ends before the first of these strings.

    Raises:
        ValueError: an empty prompt or stop string, or a tokenizer larger than the model's vocabulary.
    """
    if any(not text for text in stop):
        raise ValueError("a stop string must not be empty; leave it out to stop at the end token only")
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(
            f"tokenizer {tokenizer.name!r} has {tokenizer.vocab_size} tokens, the model's vocabulary {vocab_size}; "
            "use the tokenizer that the model was trained with"
        )
    lead = [] if tokenizer.start_id is None else [tokenizer.start_id]
    token_ids = [lead + tokenizer.encode(prompt) for prompt in prompts]
    # an empty prompt asks for a document: the end of the one before begins it.
    token_ids = [ids or [tokenizer.end_id] for ids in token_ids]
    endings = replace(sampling, end_ids=(*sampling.end_ids, tokenizer.end_id))
    return _text_steps(begin(token_ids, endings), [_Row(tokenizer, stop, endings.end_ids) for _ in prompts])


def _text_steps(steps: Iterator[Generated], rows: list["_Row"]) -> Iterator[TextStep]:
    for step in steps:
        new = tuple(row.push(token) for row, token in zip(rows, step.token_ids.tolist(), strict=True))
        yield TextStep(new=new, ended=tuple(row.ended for row in rows), generated=step)
        if all(row.ended for row in rows):
            break
    rest = tuple(row.flush() for row in rows)
    if any(rest):
        yield TextStep(new=rest, ended=tuple(row.ended for row in rows), generated=None)


class _Row:
    """One sequence: holds back what may turn out to be the beginning of a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], end_ids: tuple[int, ...]):
        self._stream = tokenizer.stream()
        self._stop = tuple(stop)
        self._end_ids = end_ids
        self._held = ""
        self.ended: Ending | None = None

    def push(self, token_id: int) -> str:
        """The text that a token adds."""
        if self.ended:
            return ""
        if token_id in self._end_ids:
            self.ended = "end token"
            return ""
        self._held += self._stream.push(token_id)
        found = [place for text in self._stop if (place := self._held.find(text)) >= 0]
        if found:
            self.ended = "stop string"
            return self._release(min(found), drop_rest=True)
        return self._release(len(self._held) - self._open_length())

    def flush(self) -> str:
        """What was held back and did not become a stop string."""
        if self.ended == "stop string":
            return ""
        self._held += self._stream.flush()
        return self._release(len(self._held))

    def _open_length(self) -> int:
        longest = max((len(text) for text in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(text.startswith(self._held[-length:]) for text in self._stop):
                return length
        return 0

    def _release(self, length: int, *, drop_rest: bool = False) -> str:
        text, rest = self._held[:length], self._held[length:]
        self._held = "" if drop_rest else rest
        return text
