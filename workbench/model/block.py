"""One block: an attention sublayer, then a feed-forward sublayer."""

from jaxtyping import Float
from torch import Tensor, nn

from workbench.core.context import RouteContext
from workbench.core.records import Site
from workbench.model.attention import AttentionLayer
from workbench.model.config import ModelConfig
from workbench.model.kv_cache import KVCache
from workbench.model.layer import DenseLayer, MoELayer
from workbench.model.packing import Packing
from workbench.model.rope import Rotation

__all__ = ["Block"]


class Block(nn.Module):
    """Attention, then experts or a dense MLP.

    Args:
        config: the model's shape.
        index: index of the block.
    """

    feed_forward: MoELayer | DenseLayer

    def __init__(self, config: ModelConfig, index: int):
        super().__init__()
        self.attention = AttentionLayer(config, index)
        if index in config.dense_layers:
            self.feed_forward = DenseLayer(config)
        else:
            layer = config.moe_layers.index(index)
            self.feed_forward = MoELayer(config, layer, name=f"blocks.{index}.feed_forward")

    def forward(
        self,
        stream: Float[Tensor, "T D"],
        context: RouteContext,
        packing: Packing,
        turn: Rotation,
        cache: KVCache | None,
    ) -> tuple[Float[Tensor, "T D"], tuple[Site, ...]]:
        """The stream after the block, and its routings."""
        stream, attention = self.attention(stream, packing, turn, cache)
        result: tuple[Tensor, tuple[Site, ...]] = self.feed_forward(stream, context.at(attention=attention))
        return result
