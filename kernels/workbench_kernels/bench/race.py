"""A race: everybody in turn, round after round; the least time and the median, with the error beside them."""

import html
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench_kernels.bench.cases import Case, Inputs
from workbench_kernels.bench.peers import ORACLE, OURS, Layer, contenders

__all__ = ["Race", "Result", "race"]


_COLUMNS = ("least ms", "median", "GFLOP/s", "error", "gradient")


@dataclass(frozen=True)
class Result:
    """One contender.

    Args:
        seconds: of each round [s]; empty where it did not run.
        error: relative Frobenius distance of its output to float64.
        gradient_error: the largest of its gradients' distances; NaN where there is no backward.
        note: why it did not run.
    """

    seconds: tuple[float, ...] = ()
    error: float = float("nan")
    gradient_error: float = float("nan")
    note: str = ""


@dataclass(frozen=True)
class Race:
    """What everybody took for one layer.

    Args:
        case: the layer and its batch.
        dtype: of tokens and experts.
        device: where it ran, in words.
        learns: forward and backward, else forward alone.
        results: by name.
    """

    case: Case
    dtype: torch.dtype
    device: str
    learns: bool
    results: dict[str, Result]

    @property
    def ratio(self) -> float:
        """Least time of the fastest peer over ours; the oracle, which does less, is no peer."""
        peers = [min(r.seconds) for name, r in self.results.items() if r.seconds and not name.startswith(OURS)]
        peers = [s for s in peers if not (ORACLE in self.results and s in self.results[ORACLE].seconds)]
        return min(peers) / min(self.results[OURS].seconds) if peers else float("nan")

    def __str__(self) -> str:
        line = "| {:28} | {:>9} | {:>9} | {:>8} | {:>7} | {:>8} |".format
        rule = f"|{'-' * 30}|{'-' * 10}:|{'-' * 10}:|{'-' * 9}:|{'-' * 8}:|{'-' * 9}:|"
        rows = [line(*row) if len(row) > 2 else f"| {row[0]:28} | {row[1]} |" for row in self._rows()]
        return "\n".join((self._title(), "", line("", *_COLUMNS), rule, *rows, "", self._verdict()))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *_COLUMNS))
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            + "</tr>"
            for name, *cells in self._rows()
        )
        title, verdict = html.escape(self._title()), html.escape(self._verdict())
        return f"<p>{title}</p><table><tr>{head}</tr>{rows}</table><p>{verdict}</p>"

    def _title(self) -> str:
        case, what = self.case, "forward and backward" if self.learns else "forward"
        return (
            f"{case.name}: {case.tokens} tokens, width {case.width}, hidden {case.hidden}, {case.experts} experts, "
            f"{case.top_k} per token, {str(self.dtype)[6:]}, {what}, {self.device}"
        )

    def _verdict(self) -> str:
        rounds = len(self.results[OURS].seconds)
        return f"{rounds} rounds in turn; the fastest peer takes {self.ratio:.2f} times as long as ours."

    def _rows(self) -> Iterator[tuple[str, ...]]:
        flops = self.case.flops * (3 if self.learns else 1)
        for name, result in self.results.items():
            if not result.seconds:
                yield name, result.note
                continue
            least, median = min(result.seconds), statistics.median(result.seconds)
            numbers = f"{least * 1e3:.2f}", f"{median * 1e3:.2f}", f"{flops / least / 1e9:.0f}"
            yield name, *numbers, _error(result.error), _error(result.gradient_error)


def race(
    case: Case,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    learns: bool = False,
    seconds: float = 10.0,
    without: frozenset[str] = frozenset(),
) -> Race:
    """Everybody on the same inputs, in turns, for about so many seconds.

    Args:
        learns: forward and backward; gradients of the experts start at none, as after `zero_grad`.
        seconds: for all contenders together [s]; at least three rounds and at most thirty are run.
        without: contenders to leave out.
    """
    inputs = case.inputs(dtype, device)
    if learns:
        for leaf in (inputs.x, inputs.weight, inputs.gate_up, inputs.down):
            leaf.requires_grad_()
    layers, results = {}, {}
    for name, layer in contenders(case, inputs, learns=learns).items():
        if name in without:
            continue
        if isinstance(layer, str):
            results[name] = Result(note=layer)
        else:
            layers[name], results[name] = _runner(layer, inputs, learns), Result()
    exact = _exact(case, inputs, learns)
    # the first round warms up and gives what is compared with float64.
    began = time.perf_counter()
    errors = {name: _distances(run, inputs, exact, name == ORACLE) for name, run in layers.items()}
    rounds = int(min(30, max(3, seconds / (time.perf_counter() - began))))
    taken: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(rounds):
        for name, run in layers.items():
            taken[name].append(run())
    for name, times in taken.items():
        results[name] = Result(tuple(times), *errors[name])
    return Race(case, dtype, _place(device), learns, results)


def _runner(layer: Layer, inputs: Inputs, learns: bool) -> Callable[[], float]:
    leaves = (inputs.x, inputs.weight, inputs.gate_up, inputs.down)

    def run() -> float:
        for leaf in leaves:
            leaf.grad = None
        _wait(inputs.x)
        began = time.perf_counter()
        if learns:
            layer(inputs.x, inputs.weight).backward(inputs.grad)
        else:
            with torch.no_grad():
                layer(inputs.x, inputs.weight)
        _wait(inputs.x)
        return time.perf_counter() - began

    run.layer = layer  # type: ignore[attr-defined]
    return run


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


_MOST_EXACT = 256  # tokens compared with float64: the reference is slow


def _exact(case: Case, inputs: Inputs, learns: bool) -> dict[str, Tensor]:
    """Output of the first tokens, and where cheap all gradients, in float64 expert by expert."""
    is_whole = learns and case.flops < 2e10
    count = case.tokens if is_whole else min(case.tokens, _MOST_EXACT)
    x, weight = (t.detach()[:count].double().requires_grad_(is_whole) for t in (inputs.x, inputs.weight))
    out, found = torch.zeros_like(x), {}
    for index in range(case.experts):
        token, slot = (inputs.expert[:count] == index).nonzero(as_tuple=True)
        gate_up, down = (t[index].detach().double() for t in (inputs.gate_up, inputs.down))
        gate, up = F.linear(x[token], gate_up).chunk(2, -1)
        out = out.index_add(0, token, F.linear(F.silu(gate) * up, down) * weight[token, slot, None])
    found["out"] = out.detach()
    if is_whole:
        out.backward(inputs.grad.double())
        assert x.grad is not None and weight.grad is not None
        found.update(x=x.grad, weight=weight.grad)
    return found


def _distances(
    run: Callable[[], float], inputs: Inputs, exact: dict[str, Tensor], is_oracle: bool
) -> tuple[float, float]:
    run()
    if is_oracle:
        return float("nan"), float("nan")
    with torch.no_grad():
        out = run.layer(inputs.x, inputs.weight)  # type: ignore[attr-defined]
    error = _distance(out[: len(exact["out"])], exact["out"])
    gradients = [_distance(getattr(inputs, name).grad, exact[name]) for name in ("x", "weight") if name in exact]
    return error, max(gradients, default=float("nan"))


def _distance(found: Tensor, exact: Tensor) -> float:
    return float((found.detach().double() - exact).norm() / exact.norm())


def _error(value: float) -> str:
    return f"{value:.1e}" if value == value else ""


def _place(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name()
    return f"cpu with {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
