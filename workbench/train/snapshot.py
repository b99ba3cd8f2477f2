"""A training state held in memory, to go back to bit for bit."""

from typing import final

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

    Args:
        model: at a step boundary.
        optimizer: trains the model.
        state: of the training.
    """

    def __init__(self, model: Transformer, optimizer: torch.optim.AdamW, state: TrainState):
        self.state = state
        self._config, self._shared_part = model.config, model.shared_part
        self._layers = [(layer, layer.parts, layer.body, layer.experts) for layer in model.moe_layers()]
        self._tensors = {name: _copy(tensor) for name, tensor in model.state_dict().items()}
        self._optimizer = {
            name: {key: _copy(value) for key, value in optimizer.state[parameter].items()}
            for name, parameter in model.named_parameters()
            if parameter in optimizer.state
        }

    def restore(self, model: Transformer, optimizer: torch.optim.AdamW, config: TrainConfig) -> TrainState:
        """Model and optimiser as they were; the state of the training then."""
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


def _copy(tensor: Tensor) -> Tensor:
    # a snapshot is let go when the next is taken: its pages need not be faulted in again, which took half of a swap.
    return recycled(tuple(tensor.shape), tensor.dtype, tensor.device).copy_(tensor)
