"""Equations, polynomials, sequences, matrices: exercises with computed answers."""

import random

from notation import Exercise, bracket, determinant, polynomial, signed

__all__ = [
    "derivative",
    "geometric",
    "induction",
    "integral",
    "linear",
    "logarithm",
    "matrix",
    "quadratic",
    "series",
    "system",
]


def linear(rng: random.Random) -> Exercise:
    """One linear equation."""
    a, x, b = rng.randint(2, 19), rng.randint(-30, 30), rng.randint(-60, 60)
    c = a * x + b
    return Exercise(
        f"Solve {a}x {signed(b)} = {c} for x.",
        f"Subtract {b} from both sides: {a}x = {c - b}. Divide by {a}: x = {c - b}/{a} = {x}. "
        f"Check: {a} * {bracket(x)} {signed(b)} = {c}.",
    )


def quadratic(rng: random.Random) -> Exercise:
    """A quadratic equation with whole roots."""
    p, q = sorted(rng.sample(range(-15, 16), 2))
    b, c = -(p + q), p * q
    root = q - p
    return Exercise(
        f"Find the roots of x^2 {signed(b)}x {signed(c)} = 0.",
        f"The discriminant is D = {bracket(b)}^2 - 4 * {bracket(c)} = {b * b - 4 * c}, and sqrt(D) = {root}. "
        f"Hence x = ({-b} ± {root})/2, that is x_1 = {p} and x_2 = {q}. "
        f"Indeed (x {signed(-p)})(x {signed(-q)}) = x^2 {signed(b)}x {signed(c)}.",
    )


def system(rng: random.Random) -> Exercise:
    """Two equations by Cramer's rule."""
    x, y = rng.randint(-12, 12), rng.randint(-12, 12)
    a, b, c, d = (rng.choice([n for n in range(-9, 10) if n]) for _ in range(4))
    divisor = a * d - b * c
    if divisor == 0:
        return system(rng)
    e, f = a * x + b * y, c * x + d * y
    return Exercise(
        f"Solve the system {a}x {signed(b)}y = {e}, {c}x {signed(d)}y = {f}.",
        f"The determinant is {a} * {bracket(d)} - {bracket(b)} * {bracket(c)} = {divisor}. By Cramer's rule "
        f"x = ({e} * {bracket(d)} - {bracket(b)} * {bracket(f)})/{bracket(divisor)} = {x} and "
        f"y = ({a} * {bracket(f)} - {bracket(e)} * {bracket(c)})/{bracket(divisor)} = {y}.",
    )


def derivative(rng: random.Random) -> Exercise:
    """Derivative of a polynomial."""
    coefficients = [rng.randint(-9, 9) for _ in range(rng.randint(3, 5))] + [rng.randint(1, 9)]
    slope = [n * a for n, a in enumerate(coefficients)][1:]
    at = rng.randint(-3, 3)
    value = sum(a * at**n for n, a in enumerate(slope))
    return Exercise(
        f"Let f(x) = {polynomial(coefficients)}. Find f'(x) and f'({at}).",
        f"Term by term, d/dx x^n = n x^(n-1), so f'(x) = {polynomial(slope)}, and f'({at}) = {value}.",
    )


def integral(rng: random.Random) -> Exercise:
    """Definite integral of a polynomial."""
    coefficients = [rng.randint(-6, 6) * (n + 1) for n in range(rng.randint(2, 4))]
    coefficients[-1] = len(coefficients) * rng.randint(1, 6)
    primitive = [0] + [a // (n + 1) for n, a in enumerate(coefficients)]
    low, high = sorted(rng.sample(range(-3, 5), 2))
    lower, upper = (sum(a * x**n for n, a in enumerate(primitive)) for x in (low, high))
    return Exercise(
        f"Evaluate $\\int_{{{low}}}^{{{high}}} ({polynomial(coefficients)}) \\, dx$.",
        f"A primitive is $F(x) = {polynomial(primitive)}$. "
        f"Then $F({high}) - F({low}) = {upper} - {bracket(lower)} = {upper - lower}$.",
    )


def series(rng: random.Random) -> Exercise:
    """Sum of an arithmetic sequence."""
    first, step, n = rng.randint(-20, 40), rng.randint(1, 15), rng.randint(5, 60)
    last = first + (n - 1) * step
    terms = ", ".join(str(first + k * step) for k in range(4))
    return Exercise(
        f"Find the sum of the first {n} terms of the arithmetic sequence {terms}, ...",
        f"The last term is a_{n} = {first} + {n - 1} * {step} = {last}. "
        f"The sum is n(a_1 + a_n)/2 = {n} * ({first} + {bracket(last)})/2 = {n * (first + last) // 2}.",
    )


def geometric(rng: random.Random) -> Exercise:
    """Sum of a geometric sequence."""
    ratio, n, first = rng.choice((2, 3, 4, 5, -2, -3)), rng.randint(3, 9), rng.randint(1, 9)
    total = first * (ratio**n - 1) // (ratio - 1)
    return Exercise(
        f"Compute $\\sum_{{k=0}}^{{{n - 1}}} {first} \\cdot {bracket(ratio)}^k$.",
        f"This is a geometric sum: ${first} \\cdot \\frac{{{bracket(ratio)}^{{{n}}} - 1}}{{{ratio} - 1}} = "
        f"{first} \\cdot \\frac{{{ratio**n - 1}}}{{{ratio - 1}}} = {total}$.",
    )


def matrix(rng: random.Random) -> Exercise:
    """Product and determinant of 2 x 2 matrices."""
    a, b = ([[rng.randint(-9, 9) for _ in range(2)] for _ in range(2)] for _ in range(2))
    product = [[sum(a[i][k] * b[k][j] for k in range(2)) for j in range(2)] for i in range(2)]
    entry = f"{a[0][0]} * {bracket(b[0][0])} + {bracket(a[0][1])} * {bracket(b[1][0])}"
    of_product = product[0][0] * product[1][1] - product[0][1] * product[1][0]
    return Exercise(
        f"Let A = {a} and B = {b}. Compute AB and det(AB).",
        f"The upper left entry is {entry} = {product[0][0]}; likewise AB = {product}. Its determinant is "
        f"{of_product} = det(A) det(B) = {determinant(a)} * {bracket(determinant(b))}.",
    )


def logarithm(rng: random.Random) -> Exercise:
    """Sum of two logarithms."""
    base, exponent = rng.choice(((2, 12), (3, 7), (5, 5), (10, 6)))
    m, n = rng.randint(1, exponent), rng.randint(1, exponent)
    return Exercise(
        f"Simplify log_{base}({base**m}) + log_{base}({base**n}).",
        f"{base**m} = {base}^{m} and {base**n} = {base}^{n}, so the sum is {m} + {n} = {m + n} "
        f"= log_{base}({base ** (m + n)}).",
    )


def induction(rng: random.Random) -> Exercise:
    """A proof by induction."""
    a, b = rng.randint(1, 9), rng.randint(-5, 9)
    total = f"{a}n(n + 1)/2 {signed(b)}n"
    base = a + b
    return Exercise(
        f"Prove by induction that the sum of ({a}k {signed(b)}) for k from 1 to n equals {total}.",
        f"For n = 1 both sides are {base}. Suppose the formula holds for n. Adding the next term "
        f"{a}(n + 1) {signed(b)} gives {a}n(n + 1)/2 + {a}(n + 1) {signed(b)}n {signed(b)} = "
        f"{a}(n + 1)(n + 2)/2 {signed(b)}(n + 1), which is the formula for n + 1. ∎",
    )
