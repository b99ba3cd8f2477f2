"""What a token costs in a forward pass, counted from shapes."""

from workbench.model.transformer import Transformer

__all__ = ["flops_per_token"]


def flops_per_token(model: Transformer, *, choices_per_token: float, context: int) -> float:
    """Floating-point operations of one token's forward pass, on average over a sequence.

    Two for every parameter of a matrix that the token meets, the output vocabulary included and the embedding
    lookup not, and those of causal attention over half a sequence. Norms, rotations, softmaxes, the sorting of
    rows, and what a router computes without parameters are left out.

    Args:
        choices_per_token: experts of the model that a token is sent to, on average over layers.
        context: tokens of a sequence.
    """
    config = model.config
    met = model.num_parameters(choices_per_token=choices_per_token)
    lookup = 0 if config.tie_embeddings else config.vocab_size * config.width
    attention = 2 * 2 * (context / 2) * config.num_heads * config.head_dim * config.num_layers
    return 2.0 * (met - lookup) + attention
