"""Made-up traces whose statistics are known, for labs and tests."""

import numpy as np
from jaxtyping import Float, Int

from workbench.core.check import at_least, within
from workbench.core.context import Phase
from workbench.trace.convert import from_arrays
from workbench.trace.schema import Trace

__all__ = ["popularity", "synthetic_trace"]


def popularity(num_experts: int, skew: float) -> Float[np.ndarray, "E"]:
    """Probability of the most popular expert, the second, and so on: Zipf's law [1]."""
    share = np.arange(1, num_experts + 1, dtype=np.float64) ** -skew
    return np.asarray(share / share.sum())


def synthetic_trace(
    *,
    num_tokens: int = 256,
    num_layers: int = 4,
    num_experts: int = 16,
    top_k: int = 2,
    skew: float = 1.0,
    locality: float = 0.0,
    phase: Phase = "decode",
    seed: int = 0,
) -> Trace:
    """A trace of one text whose experts were drawn at random; its attributes say so.

    With `top_k=1` the load tends to `popularity(num_experts, skew)`, in an order of its own in each
    layer, and a token shares its expert with the one before with probability
    `locality + (1 - locality) * sum(popularity ** 2)`.

    Args:
        skew: exponent of Zipf's law [1]; 0 makes all experts alike.
        locality: probability that a token takes the experts of the one before it [1].
        phase: `decode` makes every token a step of its own, the others make one step of all.
    """
    at_least("num_tokens", num_tokens, 0)
    at_least("num_layers", num_layers, 1)
    within("top_k", top_k, 1, num_experts, hint="use more experts or a smaller top_k")
    within("locality", locality, 0, 1)
    at_least("skew", skew, 0)
    generator = np.random.default_rng(seed)
    draws = [_draw(generator, num_tokens, num_experts, top_k, skew, locality) for _ in range(num_layers)]
    token_id = generator.integers(0, 256, size=num_tokens)
    return from_arrays(
        token_id,
        np.stack(draws, axis=1),
        num_experts=num_experts,
        step=np.arange(num_tokens) if phase == "decode" else None,
        phase=phase,
        router="synthetic",
        decode_piece=lambda token: f"<{token}>",
        attrs={"synthetic": True, "model": "none", "seed": seed, "skew": float(skew), "locality": float(locality)},
    )


def _draw(
    generator: np.random.Generator, tokens: int, experts: int, top_k: int, skew: float, locality: float
) -> Int[np.ndarray, "T K"]:
    order = generator.permutation(experts)
    # the largest of log-probabilities with Gumbel noise are a draw without replacement.
    noisy = np.log(popularity(experts, skew)) + generator.gumbel(size=(tokens, experts))
    fresh = order[np.argsort(-noisy, axis=1)[:, :top_k]]
    stays = generator.random(tokens) < locality
    stays[:1] = False
    source = np.maximum.accumulate(np.where(stays, 0, np.arange(tokens)))
    return fresh[source]
