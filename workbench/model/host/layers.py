"""The MoE layers of a transformers model, found by the form of their experts."""

from dataclasses import dataclass, field
from typing import Any

from torch import Size, nn

__all__ = ["HostLayer", "find_layers"]

# what transformers' decorator of experts classes sets on every module of such a class.
_FORM = frozenset({"has_gate", "has_bias", "is_transposed", "is_concatenated"})


@dataclass(frozen=True, kw_only=True, eq=False)
class HostLayer:
    """One MoE layer of a transformers model. Dense layers are not counted.

    Args:
        index: among the MoE layers.
        name: dotted name of the experts' module in the model.
        num_experts: routed experts; shared ones are none of them.
        top_k: experts of a token.
        score: how the router turns logits into probabilities, `softmax` or `sigmoid`; None where its weights are
            neither, or where it shows no logits.
        shapes: the experts' parameters in the module's order, each with the shape of one expert.
        module: the experts' module.
    """

    index: int
    name: str
    num_experts: int
    top_k: int = 0
    score: str | None = None
    shapes: dict[str, Size] = field(default_factory=dict)
    module: nn.Module = field(repr=False)

    @property
    def block(self) -> str:
        """Dotted name of the module that holds router and experts."""
        return self.name.rpartition(".")[0]


def find_layers(model: Any) -> tuple[HostLayer, ...]:
    """The MoE layers in the order in which the model names them.

    Raises:
        ValueError: no module of the model runs its experts through transformers' interface.
    """
    named = list(model.named_modules())
    found = [(name, module) for name, module in named if vars(module).keys() >= _FORM]
    if not found:
        others = sorted({type(module).__name__ for name, module in named if "expert" in name.rpartition(".")[2]})
        raise ValueError(
            f"expected a model whose experts run through transformers' experts interface (a class under "
            f"@use_experts_implementation, as in Mixtral, OLMoE, Qwen3-MoE, DeepSeek-V3 or GPT-OSS); "
            f"{type(model).__name__} (model_type {model.config.model_type!r}) has "
            f"{'experts of another form: ' + ', '.join(others) if others else 'no experts'}; "
            "take a checkpoint of such a family"
        )
    return tuple(_layer(index, name, module) for index, (name, module) in enumerate(found))


def _layer(index: int, name: str, module: nn.Module) -> HostLayer:
    parameters = dict(module.named_parameters())
    sizes = {parameter.shape[0] for parameter in parameters.values()}
    if len(sizes) != 1:
        raise ValueError(
            f"expected the parameters of {name} ({type(module).__name__}) stacked over experts, got first "
            f"dimensions {sorted(sizes)}; this family cannot be a host"
        )
    shapes = {key: parameter.shape[1:] for key, parameter in parameters.items()}
    return HostLayer(index=index, name=name, num_experts=sizes.pop(), shapes=shapes, module=module)
