"""A step is taken only when its loss and its gradient are numbers."""

import math
from pathlib import Path

from workbench.train.checkpoint import checkpoints

__all__ = ["NonFiniteLossError", "check_finite"]


class NonFiniteLossError(ArithmeticError):
    """The loss or its gradient is not a number; the model was not changed by that step."""


def check_finite(step: int, loss: float, grad_norm: float, folder: Path | None) -> None:
    """Nothing, if both are finite.

    Args:
        step: the step that is about to be taken, counted from 1.
        folder: where the run's checkpoints are.

    Raises:
        NonFiniteLossError: they are not; names the step and the last good checkpoint.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    saved = checkpoints(folder) if folder is not None else []
    last = f"the last good checkpoint is {saved[-1]}" if saved else "no checkpoint was written"
    raise NonFiniteLossError(
        f"step {step}: expected a finite loss and gradient, got loss {loss} and gradient norm {grad_norm}; "
        f"the step was not taken; {last}; lower the learning rate or train in float32"
    )
