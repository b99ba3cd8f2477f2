"""The learning rate of a step."""

import math

from workbench.train.config import TrainConfig

__all__ = ["learning_rate"]


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of the step with this index, counted from 0."""
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return config.learning_rate * warmup * _decay(config, step)


def _decay(config: TrainConfig, step: int) -> float:
    if config.num_steps is None:
        return 1.0
    if config.schedule == "cosine":
        span = max(1, config.num_steps - config.warmup_steps)
        done = min(max(step - config.warmup_steps, 0) / span, 1.0)
        return config.final_share + (1 - config.final_share) * 0.5 * (1 + math.cos(math.pi * done))
    span = max(1, round(config.decay_share * config.num_steps))
    done = min(max(step - (config.num_steps - span), 0) / span, 1.0)
    return 1 - (1 - config.final_share) * done
