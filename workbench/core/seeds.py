"""Random numbers that depend on what they are for, never on what was drawn before."""

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["hashed", "seed_of", "stream"]

_MASK = (1 << 64) - 1


def seed_of(*parts: int) -> int:
    """A 63-bit seed that mixes the parts in order (splitmix64 finaliser, chained)."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state + (part & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def stream(*parts: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for the purpose named by the parts."""
    generator = torch.Generator(device=device)
    generator.manual_seed(seed_of(*parts))
    return generator


def hashed(value: Int[Tensor, "..."], *parts: int) -> Int[Tensor, "..."]:
    """A non-negative pseudo-random integer per element: the same value and parts, the same result.

    Batch mates do not matter, so a decision made from it is the same in training, prefill and decode.
    """
    mixed = value.long() + (seed_of(*parts) >> 2)
    for multiplier in (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15):
        mixed = (mixed ^ (mixed >> 29)) * multiplier
    return (mixed ^ (mixed >> 32)) & 0x7FFFFFFF
