"""The roofline: what the machine allows at each ratio of arithmetic to memory, and what was reached."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import log10

import torch

from workbench_kernels.bench.peers import OURS
from workbench_kernels.bench.race import Race

__all__ = ["Machine", "measure_machine", "roofline"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 900, 520, 70, 54, 150, 210
# colours that stay apart for colour-blind readers (Okabe and Ito); the shape differs too.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_SHAPES = ("circle", "square", "diamond", "cross", "triangle")
_LINE = 13


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
    parts += _cases([(place(x, y)[0], f"{case.name}, {case.tokens} tokens") for _, case, x, y in points])
    for name, case, x, y in points:
        label = f"{name}: {case.name}, {case.tokens} tokens, {y / 1e9:.0f} GFLOP/s"
        parts.append(f"<g><title>{escape(label)}</title>{_mark(names.index(name), *place(x, y))}</g>")
    for row, name in enumerate(names):
        top = _TOP + 16 + 18 * row
        parts.append(_mark(row, _WIDTH - _RIGHT + 20, top - 4) + _text(_WIDTH - _RIGHT + 32, top, name))
    limits = f"dense products {machine.flops / 1e9:.0f} GFLOP/s, memory {machine.bandwidth / 1e9:.0f} GB/s"
    parts.append(_text(_LEFT, 18, f"roofline of {machine.name}: {limits}", size=13))
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
    yield _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, "FLOP per byte that must be moved", "middle")
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    yield f'<g transform="rotate(-90 18 {middle})">{_text(18, middle, "GFLOP/s, forward", "middle")}</g>'


def _roof(machine: Machine, low_x, high_x, low_y, place):  # type: ignore[no-untyped-def]
    ridge = machine.flops / machine.bandwidth
    start = max(10**low_x, 10**low_y / machine.bandwidth)
    corners = [place(start, start * machine.bandwidth), place(ridge, machine.flops), place(10**high_x, machine.flops)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    yield f'<polyline points="{path}" fill="none" stroke="#444" stroke-width="2"/>'


def _cases(places: Sequence[tuple[float, str]]) -> Iterator[str]:
    """The name of every layer, upright above its points; names of layers in one place lie side by side."""
    right = 0.0
    for x, text in sorted(dict.fromkeys(places)):
        right = max(x + 4, right + _LINE)
        yield f'<g transform="rotate(-90 {right:.1f} {_TOP - 8})">{_text(right, _TOP - 8, text)}</g>'


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="#333">{escape(text)}</text>'


def _mark(row: int, x: float, y: float) -> str:
    colour, shape = _COLOURS[row % len(_COLOURS)], _SHAPES[row % len(_SHAPES)]
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
    start, line = {
        "square": ((-4, -4), "h8v8h-8z"),
        "diamond": ((0, -6), "l6 6l-6 6l-6 -6z"),
        "cross": ((-5, 0), "h10m-5 -5v10"),
        "triangle": ((0, -5), "l5 9h-10z"),
    }[shape]
    path = f"M{x + start[0]:.1f} {y + start[1]:.1f}{line}"
    return f'<path d="{path}" fill="{colour}" stroke="{colour}" stroke-width="2"/>'
