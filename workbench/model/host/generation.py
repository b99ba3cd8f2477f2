"""Batched generation with a host, drawn as our own models draw."""

from collections.abc import Iterator, Sequence

import torch

from workbench.core.context import Phase
from workbench.core.records import Batch
from workbench.core.seeds import stream
from workbench.model.generate import Generated, Sampling, _drawn, _left_padded
from workbench.model.host.host_model import HostModel

__all__ = ["check_prompts", "generate_host"]


def generate_host(
    host: HostModel, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int = 0
) -> Iterator[Generated]:
    """New tokens for every prompt, one step at a time, until all have ended; each step with its routing.

    Logits are those of the last column only. A sequence's draws depend on the seed and its place in the batch.

    Args:
        prompts: token ids; lengths may differ.

    Raises:
        ValueError: no prompt, an empty one, or tokens outside the vocabulary.
    """
    check_prompts(host, prompts)
    return _steps(host, prompts, sampling, seed)


def check_prompts(host: HostModel, prompts: Sequence[Sequence[int]]) -> None:
    """Nothing, if the host can read all prompts.

    Raises:
        ValueError: no prompt, an empty one, or tokens outside the vocabulary.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise ValueError("a host needs at least one token in every prompt; got an empty one")
    low, high = min(map(min, prompts)), max(map(max, prompts))
    if low < 0 or high >= host.vocab_size:
        raise ValueError(
            f"token ids must be between 0 and {host.vocab_size - 1}, got {low if low < 0 else high}; "
            "use the tokenizer of the checkpoint"
        )


def _steps(host: HostModel, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int) -> Iterator[Generated]:
    token_ids, mask = _left_padded(prompts, host.device)
    draws = [stream(seed, row) for row in range(len(prompts))]
    running = torch.ones(len(prompts), dtype=torch.bool, device=host.device)
    cache = None
    for step in range(sampling.max_new_tokens):
        phase: Phase = "decode" if step else "prefill"
        done = host.forward(token_ids, mask=mask, cache=cache, last_only=True)
        cache = done.cache
        new = _drawn(done.output.logits[:, -1].float(), sampling, draws)
        batch = Batch(token_ids=token_ids, mask=mask[:, -token_ids.shape[1] :])
        yield Generated(token_ids=new, is_new=running.clone(), batch=batch, output=done.output, phase=phase)
        for end in sampling.end_ids:
            running &= new != end
        if not running.any():
            return
        token_ids = new.unsqueeze(-1)
        mask = torch.cat((mask, torch.ones_like(token_ids, dtype=torch.bool)), dim=1)
