"""A training state held in memory, to go back to bit for bit."""

from threading import Thread
from typing import final

import numpy as np
import torch
from torch import Tensor
from workbench_kernels.workspace import recycled

from workbench.model.transformer import Transformer
from workbench.train.checkpoint import TrainState
from workbench.train.config import TrainConfig
from workbench.train.optim import regroup

__all__ = ["Snapshot"]


@final
class Snapshot:
    """Copies of all weights and of the optimiser; as large as a checkpoint, and kept in memory.

    On a CPU they are made by a thread of their own, from `begin` on, so that training stands still no longer than it
    must: forward and backward only read what is copied. Call `settle` before anything is written to.

    Args:
        model: at a step boundary.
        optimizer: trains the model.
        state: of the training.
    """

    def __init__(self, model: Transformer, optimizer: torch.optim.AdamW, state: TrainState):
        self.state = state
        self._config, self._shared_part = model.config, model.shared_part
        self._layers = [(layer, layer.parts, layer.body, layer.experts) for layer in model.moe_layers()]
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._tensors = {name: self._copy(tensor) for name, tensor in model.state_dict().items()}
        self._optimizer = {
            name: {key: self._copy(value) for key, value in optimizer.state[parameter].items()}
            for name, parameter in model.named_parameters()
            if parameter in optimizer.state
        }
        self._thread: Thread | None = None

    def begin(self) -> "Snapshot":
        """Make the copies, beside what comes next."""
        self._thread = Thread(target=_fill, args=(self._pending,), name="workbench snapshot")
        self._thread.start()
        return self

    def settle(self) -> None:
        """Wait until the copies are made; from then on the weights may be written to."""
        if self._thread is None:
            self.begin()
        assert self._thread is not None, "it has begun"
        self._thread.join()
        self._pending.clear()

    def restore(self, model: Transformer, optimizer: torch.optim.AdamW, config: TrainConfig) -> TrainState:
        """Model and optimiser as they were; the state of the training then."""
        self.settle()
        for layer, parts, body, experts in self._layers:
            layer.install(parts)
            layer.body, layer.experts = body, experts
        model.config, model.shared_part = self._config, self._shared_part
        model.load_state_dict(self._tensors)
        optimizer.state.clear()
        for name, parameter in model.named_parameters():
            if name in self._optimizer:
                optimizer.state[parameter] = {key: value.clone() for key, value in self._optimizer[name].items()}
        regroup(optimizer, model, config)
        return self.state

    def _copy(self, tensor: Tensor) -> Tensor:
        # a snapshot is let go when the next is taken: its pages need not be faulted in again.
        copy = recycled(tuple(tensor.shape), tensor.dtype, tensor.device)
        if tensor.device.type != "cpu":
            return copy.copy_(tensor)
        self._pending.append((copy, tensor.detach()))
        return copy


def _fill(pairs: list[tuple[Tensor, Tensor]]) -> None:
    # as bytes through NumPy, on one core: the threads of torch belong to the training that goes on beside.
    for copy, tensor in pairs:
        np.copyto(_bytes_of(copy), _bytes_of(tensor))


def _bytes_of(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy()
