"""Our kernels beside everybody else's: the same inputs, one process, in turns, with the error beside the time."""

from workbench_kernels.bench.cases import CASES, Case
from workbench_kernels.bench.race import Race, race
from workbench_kernels.bench.roofline import Machine, measure_machine, roofline

__all__ = ["CASES", "Case", "Machine", "Race", "measure_machine", "race", "roofline"]
