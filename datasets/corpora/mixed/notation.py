"""How exercises write numbers and polynomials."""

from fractions import Fraction
from typing import NamedTuple

__all__ = ["Exercise", "bracket", "decimal", "determinant", "polynomial", "signed"]


class Exercise(NamedTuple):
    """A task and its worked solution."""

    task: str
    solution: str


def signed(number: int) -> str:
    """`+ 3` or `- 3`."""
    return f"{'-' if number < 0 else '+'} {abs(number)}"


def bracket(number: int) -> str:
    """The number, in brackets when it is negative."""
    return f"({number})" if number < 0 else str(number)


def decimal(number: Fraction) -> str:
    """The fraction as a decimal number."""
    return str(number) if number.denominator == 1 else f"{float(number):.10g}"


def determinant(a: list[list[int]]) -> int:
    """Determinant of a 2 x 2 matrix."""
    return a[0][0] * a[1][1] - a[0][1] * a[1][0]


def polynomial(coefficients: list[int]) -> str:
    """The polynomial with these coefficients, the constant first, as `3x^2 - x + 5`."""
    terms = []
    for power, a in reversed(list(enumerate(coefficients))):
        if a:
            factor = "" if abs(a) == 1 and power else str(abs(a))
            variable = {0: "", 1: "x"}.get(power, f"x^{power}")
            sign = (" - " if a < 0 else " + ") if terms else ("-" if a < 0 else "")
            terms.append(f"{sign}{factor}{variable}")
    return "".join(terms) or "0"
