"""Any open checkpoint with its experts on disk: a transformers model as host of the offload engine."""

import copy
import weakref
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, final

from jaxtyping import Float, Int
from torch import Tensor, nn
from workbench_kernels import register_transformers, unweighted_experts

from workbench.core.context import Phase, RouteContext
from workbench.core.experts import Experts
from workbench.core.html import facts
from workbench.core.records import Event, ExpertKey, Residency
from workbench.core.sparse import SparseRouting
from workbench.core.spec import Spec
from workbench.model.generate import Generated, Sampling
from workbench.model.host.generation import generate_host
from workbench.model.host.host_model import HostModel
from workbench.model.host.pieces import expert_pieces, read_expert
from workbench.model.tensor_files import TensorFiles
from workbench.offload.compute.offloaded import OffloadedExperts
from workbench.offload.config import OffloadConfig
from workbench.offload.engine import OffloadEngine
from workbench.offload.precision.plan import format_of
from workbench.offload.store.blocks import parts_of
from workbench.offload.store.convert import converted, stamp_of, stored_as
from workbench.offload.store.expert_store import write_store

__all__ = ["HOST_EXPERTS", "OffloadedHost", "open_offloaded_host"]

HOST_EXPERTS = "workbench"
"""The experts implementation of transformers that an offloaded host computes with, bit for bit."""


@final
class OffloadedHost:
    """A transformers model whose experts come from disk as tokens ask for them.

    With exact experts its logits are those of the same model with `experts_implementation="workbench"`, bit for bit.

    Attributes:
        host: the model.
        engine: who is where, and what it cost.
    """

    def __init__(self, host: HostModel, engine: OffloadEngine):
        self.host, self.engine = host, engine
        # threads and files end with this object, whoever forgets to close it.
        self._end = weakref.finalize(self, engine.close)
        self._phase: Phase = "prefill"
        compute = _implementation()
        self._layers = [
            OffloadedExperts(_HostExperts(layer.module, layer.num_experts, compute), engine, layer.index, _no_guess)
            for layer in host.layers
        ]
        host.plug_experts(self._run)

    def measure_host(self) -> None:
        """From now on experts compute in the host's memory where that is cheaper; see `OffloadedExperts`."""
        self._layers[0].measure_host(self.host.model.get_input_embeddings().embedding_dim)

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int = 0) -> Iterator[Generated]:
        """New tokens for every prompt, one step at a time; see `generate_host`."""
        self.engine.restart_tokens()
        self._phase = "prefill"
        for done in generate_host(self.host, prompts, sampling, seed=seed):
            self._phase = "decode"
            yield done

    def events(self, step: int = 0) -> list[Event]:
        """What the cache did since the last call, and where the experts are now."""
        return [*self.engine.drain(step), Residency(step=step, tier=self.engine.residency())]

    def close(self) -> None:
        """End the reading threads and close the store; the host has no experts any more."""
        self.host.plug_experts(None)
        self._end()

    def __enter__(self) -> "OffloadedHost":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _run(
        self,
        layer: int,
        hidden: Float[Tensor, "T D"],
        expert: Int[Tensor, "T K"],
        weight: Float[Tensor, "T K"],
        module: nn.Module,
    ) -> Float[Tensor, "T D"]:
        own = self._layers[layer]
        plan = SparseRouting.from_topk(expert.long(), weight, num_experts=own.num_experts)
        context = RouteContext(layer=layer, num_layers=len(self._layers), phase=self._phase)
        return own.run((), hidden, plan, context)

    def _repr_html_(self) -> str:
        rows = {"model": self.host.family, "MoE layers": len(self.host.layers)}
        return facts("OffloadedHost", rows) + self.engine._repr_html_()


@final
class _HostExperts(Experts):
    """The mathematics of a transformers module over tensors that come from anywhere."""

    def __init__(self, module: nn.Module, num_experts: int, compute: Callable[..., Tensor]):
        super().__init__(num_experts)
        # in a tuple: the module belongs to its model.
        self._module, self._compute = (module,), compute

    def tensors(self) -> tuple[Any, ...]:
        """The module's own parameters."""
        return tuple(self._module[0].parameters())

    def run(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "T D"]:
        """Dispatch, experts, weighted combine, by the kernels."""
        out: Tensor = self._compute(self._with(tensors), x, plan.expert, plan.weight)
        return out

    def unweighted(
        self, tensors: tuple[Any, ...], x: Float[Tensor, "T D"], plan: SparseRouting, context: RouteContext
    ) -> Float[Tensor, "N D"]:
        """Every row after its expert."""
        return unweighted_experts(self._with(tensors), *plan.dispatch(x))

    def _with(self, tensors: tuple[Any, ...]) -> nn.Module:
        """The module over other parameters; its options and its gate are its own."""
        stand_in = copy.copy(self._module[0])
        names = list(vars(stand_in)["_parameters"])
        vars(stand_in)["_parameters"] = dict(zip(names, tensors, strict=True))
        return stand_in


def open_offloaded_host(
    path: Path | str,
    config: OffloadConfig,
    *,
    store: Path | None = None,
    on_expert: Callable[[int, int], None] = lambda done, total: None,
) -> OffloadedHost:
    """The model of a Hugging Face folder with its experts on disk; they are converted the first time.

    Args:
        path: a folder that `HostModel.open` takes.
        store: where the converted experts are, or go; beside the checkpoint by default.
        on_expert: called while converting with the experts done and their number.

    Raises:
        FileNotFoundError: no such folder, or no model in it.
        ModuleNotFoundError: transformers is not installed.
        ValueError: a family that cannot be a host, damaged files, a store of other weights or in another format, a
            budget too small, or levels that the format does not have.
        LookupError: an unknown policy, prefetcher or format.
        OSError: the disk is full or not writable.
    """
    format_of(config)
    if config.calibration is not None:
        raise ValueError("calibration runs models of our own families only; leave it out for this checkpoint")
    host = HostModel.open(path, with_experts=False)
    source = Path(path)
    identity = stamp_of([source / "config.json", *sorted(source.glob("*.safetensors"))])
    # a name of its own: our own loader lays the same experts out in another way.
    opened = converted(
        source / "host-experts",
        store,
        identity,
        lambda folder: _convert(source, folder, stored_as(identity, config.format), config.format, on_expert),
        format=config.format,
    )
    try:
        engine = OffloadEngine(opened, config, top_k=max(layer.top_k for layer in host.layers), device=host.device)
    except BaseException:
        opened.close()
        raise
    offloaded = OffloadedHost(host, engine)
    if config.host_compute:
        offloaded.measure_host()
    return offloaded


def _convert(path: Path, folder: Path, identity: str, format: Spec, on_expert: Callable[[int, int], None]) -> None:
    pieces = expert_pieces(path)
    with TensorFiles(path) as files:
        experts: Iterator[tuple[ExpertKey, list[Tensor]]] = (
            (key, list(read_expert(files, parts).values())) for key, parts in sorted(pieces.items())
        )
        first = list(read_expert(files, pieces[ExpertKey(0, 0)]).values())
        last = max(pieces)
        write_store(
            folder,
            experts,
            parts_of(first),
            num_layers=last.layer + 1,
            num_experts=last.expert + 1,
            source=identity,
            format=format,
            on_expert=lambda done: on_expert(done, len(pieces)),
        )


def _implementation() -> Callable[..., Tensor]:
    register_transformers(HOST_EXPERTS)
    table = import_module("transformers.integrations.moe").ALL_EXPERTS_FUNCTIONS
    compute: Callable[..., Tensor] = table[HOST_EXPERTS]
    return compute


def _no_guess(layer: int, x: Tensor, context: RouteContext) -> list[tuple[int, float]]:
    raise LookupError(
        "a transformers model does not show its next router, so its choice cannot be guessed from hidden states; "
        "take a prefetcher that learns from what was asked for"
    )
