"""The roofline: what the machine allows at each ratio of arithmetic to memory, and what was reached."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log10

import torch

from workbench_kernels.bench.peers import OURS
from workbench_kernels.bench.race import Race

__all__ = ["Machine", "measure_machine", "roofline"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 760, 420, 70, 54, 30, 20
# colours that stay apart for colour-blind readers; the shape differs too.
_MARKS = (("#0072b2", "circle"), ("#d55e00", "square"), ("#009e73", "diamond"), ("#cc79a7", "cross"))


@dataclass(frozen=True)
class Machine:
    """What a machine can do, measured.

    Args:
        flops: of dense products [FLOP/s].
        bandwidth: of reading memory [byte/s].
        name: in words.
    """

    flops: float
    bandwidth: float
    name: str


def measure_machine(dtype: torch.dtype = torch.float32, device: str = "cpu") -> Machine:
    """The best of PyTorch's own dense product and of its sum over more than the caches hold."""
    a, b = (torch.randn(2048, 2048).to(device, dtype) for _ in range(2))
    many = torch.ones(64 * 2**20, device=device)
    product, total = (_best(lambda: torch.mm(a, b), device), _best(lambda: many.sum(), device))
    is_cuda = torch.device(device).type == "cuda"
    name = torch.cuda.get_device_name() if is_cuda else f"cpu, {torch.get_num_threads()} threads"
    return Machine(2 * 2048**3 / product, 4 * many.numel() / total, f"{name}, {str(dtype)[6:]}")


def roofline(races: Sequence[Race], machine: Machine) -> str:
    """An SVG: both axes logarithmic, one point for each contender of each forward race."""
    points = [
        (name, race.case, race.case.flops / race.case.bytes_touched(race.dtype), race.case.flops / min(result.seconds))
        for race in races
        if not race.learns
        for name, result in race.results.items()
        if result.seconds
    ]
    if not points:
        raise ValueError("a roofline needs at least one forward race, got none; run race(case) first")
    names = sorted({name for name, *_ in points}, key=lambda name: (not name.startswith(OURS), name))
    low_x, high_x = _decades([x for *_, x, _ in points] + [machine.flops / machine.bandwidth])
    low_y, high_y = _decades([y for *_, y in points] + [machine.flops])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (log10(x) - low_x) / (high_x - low_x)
        up = (log10(y) - low_y) / (high_y - low_y)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _BOTTOM - _TOP)

    parts = [*_axes(low_x, high_x, low_y, high_y, place), *_roof(machine, low_x, high_x, low_y, place)]
    for name, case, x, y in points:
        colour, shape = _MARKS[names.index(name) % len(_MARKS)]
        label = f"{name}: {case.name}, {case.tokens} tokens, {y / 1e9:.0f} GFLOP/s"
        parts.append(f"<g><title>{escape(label)}</title>{_mark(shape, colour, *place(x, y))}</g>")
    for row, name in enumerate(names):
        colour, shape = _MARKS[row % len(_MARKS)]
        top = _TOP + 16 + 18 * row
        parts.append(_mark(shape, colour, _LEFT + 16, top - 4) + _text(_LEFT + 28, top, name))
    parts.append(_text(_LEFT, 18, f"roofline of {machine.name}", size=13))
    style = "background:white;max-width:100%;font-family:system-ui,sans-serif"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        f'aria-label="roofline" style="{style}">{"".join(parts)}</svg>'
    )


def _best(run, device: str) -> float:  # type: ignore[no-untyped-def]
    least = float("inf")
    for _ in range(7):
        began = time.perf_counter()
        run()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        least = min(least, time.perf_counter() - began)
    return least


def _decades(values: Sequence[float]) -> tuple[float, float]:
    return log10(min(values)) - 0.2, log10(max(values)) + 0.3


def _axes(low_x, high_x, low_y, high_y, place):  # type: ignore[no-untyped-def]
    for low, high, is_x in ((low_x, high_x, True), (low_y, high_y, False)):
        for power in range(int(low) - 1, int(high) + 2):
            for step in (1, 2, 5):
                value = step * 10.0**power
                if not low <= log10(value) <= high:
                    continue
                x, y = place(value, 10**low_y) if is_x else place(10**low_x, value)
                end = place(value, 10**high_y) if is_x else place(10**high_x, value)
                yield f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" stroke="#e4e4e4"/>'
                number = f"{value:g}" if is_x else f"{value / 1e9:g}"
                yield _text(x, y + 16, number, "middle") if is_x else _text(x - 6, y + 4, number, "end")
    yield _text((_LEFT + _WIDTH) / 2, _HEIGHT - 12, "FLOP per byte that must be moved", "middle")
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    yield f'<g transform="rotate(-90 18 {middle})">{_text(18, middle, "GFLOP/s, forward", "middle")}</g>'


def _roof(machine: Machine, low_x, high_x, low_y, place):  # type: ignore[no-untyped-def]
    ridge = machine.flops / machine.bandwidth
    start = max(10**low_x, 10**low_y / machine.bandwidth)
    corners = [place(start, start * machine.bandwidth), place(ridge, machine.flops), place(10**high_x, machine.flops)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    yield f'<polyline points="{path}" fill="none" stroke="#444" stroke-width="2"/>'
    x, y = corners[2]
    yield _text(x, y - 6, f"dense products {machine.flops / 1e9:.0f} GFLOP/s", "end")
    yield _text(x, y + 14, f"memory {machine.bandwidth / 1e9:.0f} GB/s on the slope", "end")


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="#333">{escape(text)}</text>'


def _mark(shape: str, colour: str, x: float, y: float) -> str:
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
    if shape == "square":
        return f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9" fill="{colour}"/>'
    path = f"M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z" if shape == "diamond" else f"M{x - 5:.1f} {y:.1f}h10m-5 -5v10"
    return f'<path d="{path}" fill="{colour}" stroke="{colour}" stroke-width="2"/>'
