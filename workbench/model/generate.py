"""Batched generation: one token at a time, each sequence with its own random stream."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.core.check import at_least, within
from workbench.core.context import Phase, RouteContext
from workbench.core.records import Batch, Output
from workbench.core.seeds import stream
from workbench.model.kv_cache import KVCache
from workbench.model.transformer import Transformer

__all__ = ["Generated", "Sampling", "generate"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn.

    Args:
        temperature: divides the logits [1]; 0 takes the most probable token.
        top_k: draw among so many of the most probable tokens; 0 for all.
        top_p: draw among the fewest tokens that together have this probability [1].
        end_ids: tokens that end a sequence.
    """

    max_new_tokens: int = 50
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    end_ids: tuple[int, ...] = ()

    def in_words(self, seed: int) -> str:
        """How texts are drawn, for people."""
        return f"temperature {self.temperature}, top-p {self.top_p}, seed {seed}" if self.temperature else "greedy"

    def __post_init__(self) -> None:
        at_least("max_new_tokens", self.max_new_tokens, 0)
        at_least("temperature", self.temperature, 0, hint="0 takes the most probable token")
        at_least("top_k", self.top_k, 0, hint="0 draws among all tokens")
        within("top_p", self.top_p, 1e-9, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Generated:
    """One step of generation.

    Args:
        token_ids: the new token of each sequence.
        is_new: False for a sequence that had already ended; its token means nothing.
        batch: what the model was given in this step.
        output: what it returned, routings included.
        phase: `prefill` for the first step, `decode` after it, or always `prefill` without a cache.
        cache_bytes: memory of keys, values and router memory so far [B].
    """

    token_ids: Int[Tensor, "B"]
    is_new: Bool[Tensor, "B"]
    batch: Batch
    output: Output = field(repr=False)
    phase: str
    cache_bytes: int = 0


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    seed: int = 0,
    recompute: bool = False,
) -> Iterator[Generated]:
    """New tokens for every prompt, one step at a time, until all have ended.

    A sequence's tokens depend on its own prompt and the seed, not on its batch mates, as long as the
    router decides token by token.

    Args:
        prompts: token ids; lengths may differ.
        recompute: forward the whole prefix for every token instead of keeping a cache: slow, and the
            only way to generate with a router that is not causal.

    Raises:
        ValueError: no prompt, an empty prompt, or a router that sees later tokens, without `recompute`.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise ValueError("generate needs at least one token in every prompt; got an empty one")
    if not model.is_causal and not recompute:
        raise ValueError(
            f"router {model.config.router.name!r} decides with later tokens in view, so it cannot generate token by "
            "token; swap to a causal router such as top_k, or pass recompute=True to route the whole prefix again "
            "for every token (slow)"
        )
    return _steps(model, prompts, sampling, seed, recompute)


def _steps(
    model: Transformer, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int, recompute: bool
) -> Iterator[Generated]:
    token_ids, mask = _left_padded(prompts, model.device)
    draws = [stream(seed, row) for row in range(len(prompts))]
    running = torch.ones(len(prompts), dtype=torch.bool, device=model.device)
    cache = None if recompute else KVCache(len(prompts))
    real = torch.ones(len(prompts), 1, dtype=torch.bool, device=model.device)
    for step in range(sampling.max_new_tokens):
        phase: Phase = "decode" if step and cache is not None else "prefill"
        context = RouteContext(phase=phase, seed=seed)
        # not a decorator of the generator: another decorator around it, such as a type checker's, would undo that.
        with torch.no_grad():
            # a new column is never padding: without a mask nobody has to look.
            seen = None if phase == "decode" else mask
            output = model(token_ids, mask=seen, cache=cache, context=context)
        new = _drawn(output.logits[:, -1].float(), sampling, draws)
        batch = Batch(token_ids=token_ids, mask=mask)
        held = 0 if cache is None else cache.num_bytes
        yield Generated(token_ids=new, is_new=running, batch=batch, output=output, phase=phase, cache_bytes=held)
        for end in sampling.end_ids:
            running = running & (new != end)
        if sampling.end_ids and not running.any():
            return
        column = new.unsqueeze(-1)
        token_ids = column if cache is not None else torch.cat((token_ids, column), dim=1)
        mask = real if cache is not None else torch.cat((mask, real), dim=1)


def _left_padded(
    prompts: Sequence[Sequence[int]], device: torch.device
) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]:
    # padding on the left puts every sequence's last token in the last column.
    longest = max(len(prompt) for prompt in prompts)
    token_ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        token_ids[row, longest - len(prompt) :] = torch.as_tensor(list(prompt))
        mask[row, longest - len(prompt) :] = True
    return token_ids.to(device), mask.to(device)


def _drawn(logits: Float[Tensor, "B V"], sampling: Sampling, draws: list[torch.Generator]) -> Int[Tensor, "B"]:
    if sampling.temperature == 0:
        return logits.argmax(-1)
    prob = _allowed(logits / sampling.temperature, sampling).softmax(-1).cpu()
    rows = [torch.multinomial(row, 1, generator=draw) for row, draw in zip(prob, draws, strict=True)]
    return torch.cat(rows).to(logits.device)


def _allowed(logits: Float[Tensor, "B V"], sampling: Sampling) -> Float[Tensor, "B V"]:
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        ranked, order = logits.sort(dim=-1, descending=True, stable=True)
        prob = ranked.softmax(-1)
        # a token stays if those before it have not yet reached top_p; the first always stays.
        outside = prob.cumsum(-1) - prob >= sampling.top_p
        logits = logits.masked_fill(outside.scatter(1, order, outside), -torch.inf)
    return logits
