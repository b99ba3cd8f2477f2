"""`workbench generate` with a checkpoint that only transformers can run: experts in memory, or from disk."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from workbench.model.generate import Generated, Sampling
from workbench.model.host import HostModel, generate_host
from workbench.model.text import Begin, text_steps
from workbench.offload.config import OffloadConfig
from workbench.offload.host import open_offloaded_host
from workbench.offload.standing import room_words
from workbench.opening import open_tokenizer
from workbench.terminal import Conversion, say, write

__all__ = ["generate_with_host"]


def generate_with_host(
    folder: Path, text: str, sampling: Sampling, *, offload: OffloadConfig | None, stop: tuple[str, ...], seed: int
) -> None:
    """Continue a text, printing it as it is written, and say what that took.

    Args:
        offload: how experts are read from disk; None holds all of them in memory.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        ValueError: a family without experts, damaged files, no tokenizer, or an option that does not fit.
    """
    if offload is None:
        host = HostModel.open(folder)
        _continue(folder, host, partial(generate_host, host, seed=seed), text, sampling, stop)
        return
    with open_offloaded_host(folder, offload, on_expert=Conversion()) as opened:
        engine = opened.engine
        say(room_words(engine))

        def begin(prompts: Sequence[Sequence[int]], endings: Sampling) -> Iterator[Generated]:
            for step, done in enumerate(opened.generate(prompts, endings, seed=seed)):
                # nobody looks at them here.
                opened.events(step)
                yield done

        _continue(folder, opened.host, begin, text, sampling, stop)
        say(engine.ledger.to_text())
        say(engine.badge)


def _continue(
    folder: Path, host: HostModel, begin: Begin, text: str, sampling: Sampling, stop: tuple[str, ...]
) -> None:
    tokenizer, words = open_tokenizer(folder, host.vocab_size)
    say(repr(host))
    say(words)
    steps = text_steps(begin, tokenizer, [text], sampling, vocab_size=host.vocab_size, stop=stop)
    write(text)
    count, began = 0, time.perf_counter()
    for part in steps:
        count += part.generated is not None
        write(part.new[0])
    write("\n")
    say(f"{count / max(time.perf_counter() - began, 1e-9):.1f} tokens/s")
