"""Answers questions about the kernels, one line of JSON each: as a child process, because Triton's interpreter is
chosen by the environment before Triton is imported.
"""

import json
import os
import sys
from types import ModuleType

import numpy as np
import torch
import triton.language as tl
import triton_compile
import triton_launches
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
    teach_bfloat16(interpreter)


def teach_bfloat16(interpreter: ModuleType) -> None:
    """Triton's interpreter multiplies the bits of bfloat16 as whole numbers (triton-lang/triton#11584), and cuts off
    what a GPU rounds to the nearest even number.
    """
    builder = interpreter.InterpreterBuilder
    dot, cast = builder.create_dot, builder.cast_impl

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = torch.from_numpy(np.ascontiguousarray(handle.data).view(np.int16))
        return interpreter.TensorHandle(bits.view(torch.bfloat16).float().numpy(), tl.float32)

    def dot_of_floats(self, left, right, *rest):
        return dot(self, widened(left), widened(right), *rest)

    def cast_to_nearest(self, source, kind):
        if (source.dtype.scalar, kind.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, source, kind)
        rounded = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16().view(torch.int16).numpy()
        return interpreter.TensorHandle(rounded.view(np.uint16), tl.bfloat16)

    builder.create_dot, builder.cast_impl = dot_of_floats, cast_to_nearest


def answer() -> None:
    """Answers each line of the input with one line."""
    known = {**vars(triton_layers), **vars(triton_parts), **vars(triton_launches), **vars(triton_compile)}
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
