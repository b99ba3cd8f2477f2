"""Which routings a trace keeps, and how it says so."""

from dataclasses import dataclass

from workbench.core.check import at_least

__all__ = ["Sampling"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which routings of training a trace keeps; prefill and decode are kept always.

    Args:
        train_every: steps between kept routings of training and evaluation batches; 0 keeps none.
        train_tokens: tokens kept of each, the first of the batch.
        probe_every: steps between passes of the fixed probe text; 0 plans none.
        prob: keep every token's probabilities, too.
    """

    train_every: int = 10
    train_tokens: int = 256
    probe_every: int = 50
    prob: bool = False

    def __post_init__(self) -> None:
        for name in ("train_every", "train_tokens", "probe_every"):
            at_least(name, int(vars(self)[name]), 0)

    def is_train_due(self, step: int) -> bool:
        """Whether the routing of a training step is kept; the first step always is."""
        return self.train_every > 0 and (step <= 1 or step % self.train_every == 0)

    def is_probe_due(self, step: int) -> bool:
        """Whether the probe text is due at a step; it is before the first."""
        return self.probe_every > 0 and step % self.probe_every == 0

    def __str__(self) -> str:
        train = (
            f"training: the first {self.train_tokens} tokens of step 1 and of every {_nth(self.train_every)}step"
            if self.train_every
            else "training: none"
        )
        probe = f"probe text: every {_nth(self.probe_every)}step" if self.probe_every else "probe text: not planned"
        prob = "; with probabilities" if self.prob else ""
        return f"{train}; {probe}; prefill and decode: every token{prob}"

    def take(self, step: int, tokens: int, taken: int) -> int:
        """Tokens of a training batch to keep, when the step has already given some."""
        return min(tokens, max(self.train_tokens - taken, 0)) if self.is_train_due(step) else 0


def _nth(count: int) -> str:
    words = {1: "", 2: "2nd ", 3: "3rd "}
    return words.get(count, f"{count}th ")
