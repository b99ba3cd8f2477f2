"""Generated mathematics: exercises with worked solutions. Synthetic, and every answer is computed."""

import random
from collections.abc import Callable, Iterator
from functools import partial

import exercises_algebra as algebra
import exercises_numbers as numeric
from notation import Exercise
from records import Raw

__all__ = ["mathematics"]

_SEED = 20240229
_SUBJECTS: list[Callable[[random.Random], Exercise]] = [
    algebra.linear,
    algebra.quadratic,
    algebra.system,
    numeric.euclid,
    numeric.factors,
    numeric.fractions,
    algebra.derivative,
    algebra.integral,
    algebra.series,
    algebra.geometric,
    numeric.bases,
    numeric.modular,
    algebra.matrix,
    numeric.choose,
    numeric.probability,
    numeric.percent,
    numeric.triangle,
    algebra.induction,
    numeric.division,
    algebra.logarithm,
]


def mathematics(count: int) -> Iterator[Raw]:
    """That many sheets of exercises, each on one to four subjects."""
    for number in range(count):
        yield Raw(
            domain="mathematics",
            kind="synthetic",
            package="generated",
            version=f"seed {_SEED}",
            licence="CC0-1.0",
            path=f"mathematics.py:sheet {number}",
            load=partial(_sheet, number),
        )


def _sheet(number: int) -> str:
    rng = random.Random(_SEED + number)
    subjects = rng.sample(_SUBJECTS, k=rng.randint(1, 4))
    exercises = dict.fromkeys(rng.choice(subjects)(rng) for _ in range(rng.randint(4, 9)))
    label, answer = rng.choice((("Exercise", "Solution"), ("Problem", "Answer"), ("Question", "Answer")))
    parts = [f"{label} {n}. {task}\n{answer}. {steps}" for n, (task, steps) in enumerate(exercises, start=1)]
    return "\n\n".join(parts) + "\n"
