"""Experts in equal parts: groups, nodes."""

__all__ = ["check_divides", "divisors", "near_square"]


def divisors(whole: int) -> list[int]:
    """The numbers of equal parts that a whole can be split into, from 1 to itself."""
    return [parts for parts in range(1, whole + 1) if whole % parts == 0]


def near_square(whole: int) -> int:
    """The largest divisor that is no more than the square root: 2 for 8, 4 for 16, 1 for a prime."""
    return max(parts for parts in divisors(whole) if parts * parts <= whole)


def check_divides(label: str, parts: int, num_experts: int) -> int:
    """The number of parts, once the experts can be split into it.

    Raises:
        ValueError: they cannot; the message lists what is possible.
    """
    legal = divisors(num_experts)
    if parts not in legal:
        raise ValueError(f"{label} must divide num_experts={num_experts}, got {parts}; legal values: {legal}")
    return parts
