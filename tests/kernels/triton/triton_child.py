"""Answers questions about the kernels, one line of JSON each: as a child process, because Triton's interpreter is
chosen by the environment before Triton is imported.
"""

import json
import os
import sys

import torch
import triton_compile
import triton_layers
import triton_parts


def mend_the_interpreter() -> None:
    """Triton 3.6 turns arrays of one number to int, which NumPy 2.4 refuses (triton-lang/triton#9171)."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_and_mend(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_and_mend


def answer() -> None:
    """Answers each line of the input with one line."""
    known = {**vars(triton_layers), **vars(triton_parts), **vars(triton_compile)}
    for line in sys.stdin:
        question = json.loads(line)
        result = known[question.pop("operation")](**question)
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if os.environ.get("TRITON_INTERPRET") == "1":
        mend_the_interpreter()
    answer()
