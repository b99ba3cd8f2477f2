"""How long `import workbench` takes in a fresh interpreter, and what it loads."""

import statistics
import subprocess
import sys

RUNS = 9
CODE = (
    "import sys, time; began = time.perf_counter(); import workbench; "
    "print(time.perf_counter() - began, 'torch' in sys.modules)"
)


def bench_import_of_workbench():
    results = [subprocess.check_output([sys.executable, "-c", CODE], text=True).split() for _ in range(RUNS)]
    seconds = [float(took) for took, _ in results]
    print(
        f"\nimport workbench: median {statistics.median(seconds) * 1e3:.1f} ms, least {min(seconds) * 1e3:.1f} ms over "
        f"{RUNS} interpreters (goal: under 200 ms); torch loaded: {results[0][1]}"
    )
