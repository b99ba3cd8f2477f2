"""Layers of known models beside every peer that runs here: the error beside the time, the goal beside the ratio.

Tables and a roofline are written to `runs/bench/`; those of machines that were measured lie in `results/`.
"""

import os
import platform
from pathlib import Path

import torch
import transformers
from workbench_kernels import backend_of
from workbench_kernels.bench import CASES, measure_machine, race, roofline

# case, tokens, backward too, and the goal for the ratio to the fastest peer in bfloat16 with AMX and in float32.
CPU = [
    ("work", 4096, False, 5.0, 1.5),
    ("work", 256, False, 12.0, None),
    ("work", 4096, True, 4.0, 2.0),
    ("work", 256, True, 10.0, None),
    ("olmoe", 64, False, 1.7, None),
    ("olmoe", 512, False, 2.0, None),
    ("olmoe", 4096, False, 2.0, None),
    ("olmoe", 512, True, 2.5, None),
    ("olmoe", 4096, True, 3.0, None),
    ("qwen3", 1024, False, None, None),
    ("mixtral", 256, False, None, None),
]
GPU = [
    (name, tokens, learns)
    for name in ("work", "olmoe", "qwen3")
    for tokens in (4096, 32768)
    for learns in (False, True)
]
# where bfloat16 is widened a peer takes minutes for one pass of the large layers; elsewhere float32 says less.
SMALL = {"work"}


def note(text, name):
    print("\n" + text)
    folder = Path("runs/bench")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a") as file:
        file.write(text + "\n\n")


def heading():
    return (
        f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f} at the start; {backend_of('cpu').reason}"
    )


def bench_cpu_layers():
    reason = backend_of("cpu", torch.bfloat16).reason
    has_amx, is_native = "AMX" in reason, "bfloat16" in reason
    note(heading(), "cpu.md")
    races = []
    for name, tokens, learns, amx_goal, float32_goal in CPU:
        for dtype, goal in ((torch.float32, float32_goal), (torch.bfloat16, amx_goal)):
            is_slow = name not in SMALL and (dtype == torch.bfloat16) != is_native
            if is_slow or (name == "mixtral" and not has_amx):
                continue
            without = {"workbench without a compiler"} if name not in SMALL else set()
            result = race(
                CASES[name].with_tokens(tokens), dtype=dtype, learns=learns, seconds=8, without=frozenset(without)
            )
            races.append(result)
            wanted = "" if goal is None else f" (goal{' with AMX' if dtype == torch.bfloat16 else ''}: {goal})"
            note(f"{result}{wanted}", "cpu.md")
    dtype = torch.bfloat16 if is_native else torch.float32
    own = [result for result in races if result.dtype == dtype]
    Path("runs/bench/cpu_roofline.svg").write_text(roofline(own, measure_machine(dtype)))


def bench_gpu_layers():
    if not torch.cuda.is_available():
        print("\nno CUDA GPU here: the GPU layers were not raced")
        return
    races = [
        race(CASES[name].with_tokens(tokens), dtype=torch.bfloat16, device="cuda", learns=learns)
        for name, tokens, learns in GPU
    ]
    for result in races:
        note(str(result), "gpu.md")
    Path("runs/bench/gpu_roofline.svg").write_text(roofline(races, measure_machine(torch.bfloat16, "cuda")))
