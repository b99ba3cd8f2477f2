"""Whether somebody looks at operators as they run, or only at their results."""

import torch
from torch import Tensor, nn

__all__ = ["is_traced"]

_PLAIN = (Tensor, nn.Parameter)


def is_traced(*tensors: Tensor) -> bool:
    """True under `torch.compile`, a dispatch mode or a functional transform, and for tensor subclasses.

    Then the custom operators must be called; otherwise what they do may be called at once.
    """
    if torch.compiler.is_compiling():
        return True
    # a loop: a generator takes longer than all the rest, and tokens are asked one by one.
    for tensor in tensors:
        if type(tensor) not in _PLAIN:
            return True
    return torch._C._len_torch_dispatch_stack() > 0 or torch._C._functorch.peek_interpreter_stack() is not None
