"""Whole numbers, fractions, counting, chance: exercises with computed answers."""

import math
import random
from fractions import Fraction

from notation import Exercise, decimal

__all__ = [
    "bases",
    "choose",
    "division",
    "euclid",
    "factors",
    "fractions",
    "modular",
    "percent",
    "probability",
    "triangle",
]


def euclid(rng: random.Random) -> Exercise:
    """Greatest common divisor."""
    common = rng.randint(1, 40)
    a, b = sorted((common * rng.randint(3, 90), common * rng.randint(2, 60)), reverse=True)
    lines, x, y = [], a, b
    while y:
        lines.append(f"  {x} = {x // y} * {y} + {x % y}")
        x, y = y, x % y
    return Exercise(
        f"Compute gcd({a}, {b}) with the algorithm of Euclid.",
        "Divide with remainder until nothing remains:\n" + "\n".join(lines) + f"\nSo gcd({a}, {b}) = {x}, "
        f"and lcm({a}, {b}) = {a} * {b} / {x} = {a * b // x}.",
    )


def factors(rng: random.Random) -> Exercise:
    """Prime factors and number of divisors."""
    number = math.prod(rng.choices((2, 2, 2, 3, 3, 5, 7, 11, 13, 17, 19, 23), k=rng.randint(3, 6)))
    rest, steps, powers = number, [], {}
    for prime in (2, 3, 5, 7, 11, 13, 17, 19, 23):
        while rest % prime == 0:
            steps.append(f"{rest} = {prime} * {rest // prime}")
            rest, powers[prime] = rest // prime, powers.get(prime, 0) + 1
    divisors = math.prod(power + 1 for power in powers.values())
    written = " * ".join(f"{prime}^{power}" if power > 1 else str(prime) for prime, power in powers.items())
    return Exercise(
        f"Write {number} as a product of primes. How many divisors does it have?",
        f"{'; '.join(steps)}. Therefore {number} = {written}, and it has {divisors} divisors.",
    )


def fractions(rng: random.Random) -> Exercise:
    """Sum or difference of two fractions."""
    first, second = (Fraction(rng.randint(1, 20), rng.randint(2, 24)) for _ in range(2))
    common = math.lcm(first.denominator, second.denominator)
    a, b = first.numerator * common // first.denominator, second.numerator * common // second.denominator
    sign, total = rng.choice((("+", a + b), ("-", a - b)))
    result = Fraction(total, common)
    return Exercise(
        f"Compute {first} {sign} {second}.",
        f"The common denominator is {common}: {a}/{common} {sign} {b}/{common} = {total}/{common}"
        f"{'' if str(result) == f'{total}/{common}' else f' = {result}'}.",
    )


def bases(rng: random.Random) -> Exercise:
    """A number in another base."""
    number, base = rng.randint(20, 5000), rng.choice((2, 3, 5, 7, 8, 16))
    rest, steps, digits = number, [], []
    while rest:
        steps.append(f"{rest} = {rest // base} * {base} + {rest % base}")
        digits.append("0123456789ABCDEF"[rest % base])
        rest //= base
    return Exercise(
        f"Write {number} in base {base}.",
        f"{'; '.join(steps)}. Read the remainders from the last to the first: {''.join(reversed(digits))}_{base}.",
    )


def modular(rng: random.Random) -> Exercise:
    """A power modulo a number, by squaring."""
    base, exponent, modulus = rng.randint(2, 50), rng.randint(5, 200), rng.randint(7, 199)
    steps, square, power = [], base % modulus, 1
    for bit in reversed(f"{exponent:b}"):
        steps.append(f"{base}^{power} ≡ {square}{' (used)' if bit == '1' else ''}")
        square, power = square * square % modulus, power * 2
    return Exercise(
        f"Compute {base}^{exponent} mod {modulus}.",
        f"{exponent} is {exponent:b} in binary. Squaring again and again modulo {modulus}: {', '.join(steps)}. "
        f"The product of those that are used is {pow(base, exponent, modulus)}.",
    )


def choose(rng: random.Random) -> Exercise:
    """Ways to choose."""
    n = rng.randint(5, 30)
    k = rng.randint(2, min(5, n - 1))
    top = " * ".join(str(n - i) for i in range(k))
    thing = rng.choice(("a committee of {k} from {n} people", "{k} cards from {n}", "a subset of {k} of {n} elements"))
    return Exercise(
        f"In how many ways can one choose {thing.format(k=k, n=n)}?",
        f"C({n}, {k}) = {n}!/({k}! {n - k}!) = ({top})/{math.factorial(k)} = {math.comb(n, k)}.",
    )


def probability(rng: random.Random) -> Exercise:
    """Two draws from a bag."""
    red, blue = rng.randint(2, 12), rng.randint(2, 12)
    total = red + blue
    both = Fraction(red, total) * Fraction(red - 1, total - 1)
    return Exercise(
        f"A bag holds {red} red and {blue} blue balls. Two are drawn without putting back. "
        "What is the probability that both are red?",
        f"P = {red}/{total} * {red - 1}/{total - 1} = {red * (red - 1)}/{total * (total - 1)} = {both}, "
        f"about {float(both):.4f}. At least one is blue with probability 1 - {both} = {1 - both}.",
    )


def percent(rng: random.Random) -> Exercise:
    """A price that changes."""
    price, percent = rng.randint(2, 90) * 10, rng.choice((5, 10, 12, 15, 20, 25, 30, 40))
    word, sign = rng.choice((("rises", 1), ("falls", -1)))
    change = Fraction(price * percent, 100)
    return Exercise(
        f"A price of {price} {word} by {percent} percent. What is the new price?",
        f"{percent} percent of {price} is {percent}/100 * {price} = {decimal(change)}. "
        f"The new price is {price} {'+' if sign > 0 else '-'} {decimal(change)} = {decimal(price + sign * change)}.",
    )


def triangle(rng: random.Random) -> Exercise:
    """Pythagoras."""
    m = rng.randint(2, 9)
    n = rng.randint(1, m - 1)
    a, b, c = m * m - n * n, 2 * m * n, m * m + n * n
    return Exercise(
        f"A right triangle has legs {a} and {b}. Find the hypotenuse and the area.",
        f"By the theorem of Pythagoras c^2 = {a}^2 + {b}^2 = {a * a} + {b * b} = {c * c}, so c = {c}. "
        f"The area is {a} * {b}/2 = {a * b // 2}.",
    )


def division(rng: random.Random) -> Exercise:
    """Long division."""
    divisor, quotient = rng.randint(12, 97), rng.randint(100, 9999)
    remainder = rng.randint(0, divisor - 1)
    number = divisor * quotient + remainder
    lines, held = [], 0
    for digit in str(number):
        held = held * 10 + int(digit)
        if held >= divisor or lines:
            lines.append(f"  {held} = {held // divisor} * {divisor} + {held % divisor}")
        held %= divisor
    return Exercise(
        f"Divide {number} by {divisor}.",
        "Digit by digit:\n" + "\n".join(lines) + f"\nThe quotient is {quotient}, the remainder {remainder}.",
    )
