"""A whole model with its experts on disk: converted once, opened under a budget."""

import shutil
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.experts import Experts
from workbench.core.html import facts
from workbench.core.records import Event, Output, Residency
from workbench.model.generate import Generated
from workbench.model.kv_cache import KVCache, room_for
from workbench.model.layer import MoELayer
from workbench.model.pieces import fill
from workbench.model.router_parts import new_experts
from workbench.model.transformer import Transformer
from workbench.model.weights import open_source
from workbench.offload.calibration import calibration_tokens
from workbench.offload.compute.offloaded import OffloadedExperts
from workbench.offload.config import OffloadConfig
from workbench.offload.engine import OffloadEngine
from workbench.offload.pass_start import tell_passes
from workbench.offload.precision.lossy import PrecisionLoss, Predict, loss_of_precision
from workbench.offload.precision.plan import format_of
from workbench.offload.prefetcher import Guess
from workbench.offload.standing import experts_in, standing
from workbench.offload.store.convert import convert, convert_model, converted, identity_of, is_expert
from workbench.offload.store.expert_store import ExpertStore

__all__ = ["OffloadedModel", "offload_model", "open_offloaded"]


@final
class OffloadedModel:
    """A model whose experts come from disk as tokens ask for them.

    Attributes:
        model: computes as any other; only its experts are elsewhere.
        engine: who is where, and what it cost.
    """

    def __init__(self, model: Transformer, engine: OffloadEngine, scratch: Path | None = None):
        self.model, self.engine = model, engine
        # threads and files end with this object, whoever forgets to close it.
        self._end = weakref.finalize(self, _end, engine, scratch)
        model.register_forward_pre_hook(self._make_room, with_kwargs=True)
        tell_passes(model, engine)
        self._lock = threading.Lock()
        self._is_writing = False
        self._experts_in = experts_in(engine.residency())
        self._changes: deque[tuple[Callable[[OffloadEngine], None], Future[None]]] = deque()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A text is written inside: its tokens count from 0, and changes wait for the end of a token."""
        with self._lock:
            self.engine.restart_tokens()
            self._is_writing = True
        try:
            yield
        finally:
            with self._lock:
                self._is_writing = False
                self._make_changes()

    def change(self, what: Callable[[OffloadEngine], None]) -> None:
        """Change budget, policy or prefetcher, from any thread; while a text is written, between two of its tokens.

        Raises:
            ValueError: the engine refuses; it is as it was.
            LookupError: an unknown name.
            OSError: what a policy or prefetcher reads could not be read.
        """
        done: Future[None] = Future()
        with self._lock:
            self._changes.append((what, done))
            # under the lock: no text can begin meanwhile.
            if not self._is_writing:
                self._make_changes()
        done.result()

    def facts(self) -> dict[str, Any]:
        """How it stands, as plain data; experts are counted where they were after the last token."""
        return standing(self.engine, self._experts_in)

    def measure_loss(self, exact: Predict, token_ids: Sequence[int], *, window: int = 512) -> PrecisionLoss:
        """What the format and the skipping cost on a text; from now on the repr says so.

        Args:
            exact: predicts with exact experts: `OffloadedModel.predict` of another one, or of a model in memory
                `lambda ids: model(ids).logits`.
            window: tokens that are read together; at most the positions of the model.

        Raises:
            ValueError: a text or a window of fewer than two tokens.
        """
        window = min(window, self.model.config.max_positions)
        loss = loss_of_precision(self.predict, exact, token_ids, window=window)
        self.engine.precision.loss = loss
        return loss

    @torch.no_grad()
    def predict(self, token_ids: Int[Tensor, "B S"]) -> Float[Tensor, "B S V"]:
        """Logits of every next token of texts that are read at once."""
        output: Output = self.model(token_ids.to(self.model.device))
        return output.logits

    def _make_changes(self) -> None:
        while self._changes:
            what, done = self._changes.popleft()
            try:
                what(self.engine)
            except (ValueError, LookupError, OSError) as error:
                done.set_exception(error)
            else:
                self._experts_in = experts_in(self.engine.residency())
                done.set_result(None)

    def events_of(self, done: Generated, step: int) -> Sequence[Event]:
        """What the cache did for a step of generation."""
        events = self.engine.drain(step)
        self._make_changes()
        tier = self.engine.residency()
        self._experts_in = experts_in(tier)
        return [*events, Residency(step=step, tier=tier)]

    def _make_room(self, model: Transformer, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Before a pass its KV cache takes its part of the budget, as large as the pass will leave it.

        What a router remembers is counted from the second pass on.
        """
        cache: KVCache | None = options.get("cache")
        if cache is None:
            return
        token_ids: Tensor = args[0] if args else options["token_ids"]
        batch, columns = token_ids.shape
        if cache.length:
            self.engine.share_budget(cache.bytes_after(columns))
        else:
            config, itemsize = model.config, model.embedding.weight.element_size()
            column = 2 * config.num_layers * config.num_kv_heads * config.head_dim * itemsize
            self.engine.share_budget(batch * room_for(columns) * column)

    def __enter__(self) -> "OffloadedModel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the reading threads and close the store; a temporary one is removed."""
        self._end()

    def _repr_html_(self) -> str:
        config = self.model.config
        rows = {"model": f"{config.num_layers} blocks, {config.num_experts} experts", "router": str(config.router)}
        return facts("OffloadedModel", rows) + self.engine._repr_html_()


def open_offloaded(
    path: Path | str,
    config: OffloadConfig,
    *,
    store: Path | None = None,
    device: torch.device | str = "cpu",
    on_expert: Callable[[int, int], None] = lambda done, total: None,
) -> OffloadedModel:
    """The model of a checkpoint or a run with its experts on disk; they are converted the first time.

    Only the weights outside of the experts are held in memory, and as many experts as the budget allows.

    Args:
        path: as for `load`.
        store: where the converted experts are, or go; beside the checkpoint by default.
        on_expert: called while converting with the experts done and their number.

    Raises:
        FileNotFoundError: no such folder, or no model in it.
        ValueError: a damaged checkpoint or store, a store of other weights or in another format, a budget that is
            too small, or levels that the format does not have.
        LookupError: an unknown policy, prefetcher, format or router.
        OSError: the disk is full or not writable.
    """
    format_of(config)
    with open_source(path) as source:
        text = calibration_tokens(config.calibration, source.folder)
        opened = converted(
            source.folder / "experts",
            store,
            identity_of(source),
            lambda folder: convert(source, folder, format=config.format, calibration=text, on_expert=on_expert),
            format=config.format,
            calibration=text,
        )
        engine = _engine(opened, source.model, config, torch.device(device))
        try:
            _take_over(source.model, engine, config)
            own = [piece for piece in source.pieces if not is_expert(piece)]
            others = {piece.name for piece in source.pieces} - {piece.name for piece in own}
            fill(source.model, source.files, own, dtype=None, device=device, ignored={*source.ignored, *others})
        except BaseException:
            engine.close()
            raise
        return OffloadedModel(source.model, engine)


def offload_model(model: Transformer, config: OffloadConfig) -> OffloadedModel:
    """A copy of a model in memory whose experts are in a temporary file, as both are now.

    Raises:
        ValueError: a model without experts, a budget that is too small, or levels that the format does not have.
        LookupError: an unknown policy, prefetcher or format.
        OSError: the disk is full or not writable.
    """
    format_of(config)
    text = calibration_tokens(config.calibration, None)
    scratch = Path(mkdtemp(prefix="workbench-experts-"))
    copy = Transformer(model.config)
    try:
        convert_model(model, scratch / "experts", format=config.format, calibration=text)
        engine = _engine(ExpertStore(scratch / "experts"), copy, config, model.device)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    _take_over(copy, engine, config)
    # without the experts there is little to copy.
    own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if ".experts." not in name}
    copy.load_state_dict(own, assign=True)
    copy.steering = model.steering
    return OffloadedModel(copy, engine, scratch)


def _end(engine: OffloadEngine, scratch: Path | None) -> None:
    engine.close()
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)


def _engine(store: ExpertStore, model: Transformer, config: OffloadConfig, device: torch.device) -> OffloadEngine:
    top_k = min(_most_choices(next(model.moe_layers())), model.config.num_experts)
    try:
        return OffloadEngine(store, config, top_k=top_k, device=device)
    except BaseException:
        store.close()
        raise


def _most_choices(layer: MoELayer) -> int:
    # routers without a fixed number of choices are served in waves, if need be one expert at a time.
    return int(vars(layer.router).get("top_k", 1))


def _take_over(model: Transformer, engine: OffloadEngine, config: OffloadConfig) -> None:
    """Put offloaded experts in the place of the model's."""
    layers = list(model.moe_layers())
    gate = _Ahead(model, engine.store.num_experts)
    for layer in layers:
        with torch.device("meta"):
            body: Experts = new_experts(model.config, layer.body, layer.layer, seed=0)
        experts = OffloadedExperts(body, engine, layer.layer, gate)
        if config.host_compute and engine.host_side is None:
            experts.measure_host(model.config.width)
        layer.experts = experts


@final
class _Ahead:
    """What the next layer's router would choose for what this layer's experts see."""

    def __init__(self, model: Transformer, num_experts: int):
        # in a tuple: an expert module that knew the model as a submodule would hold it twice.
        self._layers = tuple(model.moe_layers())
        self._num_experts = num_experts

    def __call__(self, layer: int, x: Float[Tensor, "T D"], context: RouteContext) -> list[Guess]:
        if layer + 1 >= len(self._layers):
            return []
        here, there = self._layers[layer], self._layers[layer + 1]
        # the same stream under the next layer's norm: only the gains differ.
        seen = x / here.norm.weight * there.norm.weight
        alone = context.at(layer=layer + 1, iteration=0, previous=None, attention=None, watcher=None, bias=None)
        demand = there.router(seen, alone).demand[: self._num_experts]
        base, rows = (layer + 1) * self._num_experts, max(len(x), 1)
        found = [(base + int(expert), float(demand[expert]) / rows) for expert in demand.nonzero().flatten()]
        return sorted(found, key=lambda guess: (-guess[1], guess[0]))
