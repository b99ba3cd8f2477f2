"""Experts that are not computed because they weigh little: lossy, and off unless asked for."""

from dataclasses import replace

import torch

from workbench.core.sparse import SparseRouting

__all__ = ["without_light"]


def without_light(plan: SparseRouting, share: float) -> tuple[SparseRouting, int]:
    """A routing without the assignments whose weight is below a share of their token's largest, and how many those are.

    The weights that remain are scaled so that their magnitudes add up to what they were: for weights that add up to
    one this is the paper's new normalisation. Deterministic: what is left out does not depend on what is cached.

    Args:
        share: of the largest weight [1]; 0 leaves nothing out. The paper takes the median share of a calibration
            text for each layer, for two experts per token; here it is one number, for any number of them.

    Source: arXiv 2402.14800, section 3.3 (dynamic expert skipping), and its released code.
    """
    if not share or not plan.expert.numel():
        return plan, 0
    is_there = plan.expert >= 0 if plan.kept is None else plan.kept
    size = plan.weight.abs().masked_fill(~is_there, 0)
    is_light = is_there & (size < share * size.amax(-1, keepdim=True))
    skipped = int(is_light.sum())
    if not skipped:
        return plan, 0
    stays = is_there & ~is_light
    rest = size.masked_fill(is_light, 0).sum(-1, keepdim=True)
    # tokens that lose nothing keep their weights to the bit.
    scale = torch.where(is_light.any(-1, keepdim=True), size.sum(-1, keepdim=True) / rest, 1.0)
    weight = plan.weight * scale
    if plan.num_tokens == 1:
        # the slots go altogether, so that the token is computed on the way of every single token.
        return replace(plan, expert=plan.expert[:, stays[0]], weight=weight[:, stays[0]], kept=None), skipped
    return replace(plan, weight=weight, kept=stays), skipped
