"""Shuffling without a shuffled list: a permutation that is computed place by place."""

import numpy as np
from jaxtyping import Int, UInt64

from workbench.core.seeds import seed_of

__all__ = ["permuted"]

_ROUNDS = 6


def permuted(place: Int[np.ndarray, "places"], length: int, *key: int) -> Int[np.ndarray, "places"]:
    """Where each place goes in a pseudo-random permutation of `range(length)`.

    Memory does not grow with `length`. A Feistel network permutes the next power of four, and walks
    on until it is back inside the range, which takes less than four steps on average.

    Args:
        place: each between 0 and `length - 1`.
        length: size of the range.
        key: integers that choose the permutation.
    """
    half_bits = max(1, ((length - 1).bit_length() + 1) // 2)
    keys = [np.uint64(seed_of(*key, number)) for number in range(_ROUNDS)]
    result = _feistel(place.astype(np.uint64), keys, half_bits)
    while (outside := result >= length).any():
        result[outside] = _feistel(result[outside], keys, half_bits)
    return result.astype(np.int64)


def _feistel(
    value: UInt64[np.ndarray, "places"], keys: list[np.uint64], half_bits: int
) -> UInt64[np.ndarray, "places"]:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = value >> shift, value & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) & mask)
    return (left << shift) | right


def _mixed(value: UInt64[np.ndarray, "places"]) -> UInt64[np.ndarray, "places"]:
    # splitmix64 finaliser: every bit of the input moves every bit of the output
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: UInt64[np.ndarray, places] = value ^ (value >> np.uint64(31))
    return mixed
