"""The specification of causal attention, in plain PyTorch: any dtype, differentiable by autograd and by hand."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["attention_backward_ref", "attention_ref"]

Turn = tuple[Float[Tensor, "T Q"], Float[Tensor, "T Q"]]


def attention_ref(
    query: Float[Tensor, "B S H Q"],
    key: Float[Tensor, "B S G Q"],
    value: Float[Tensor, "B S G Q"],
    turn: Turn | None = None,
) -> Float[Tensor, "B S H Q"]:
    """Every query's mean of the values up to its own, weighted by the softmax of its scores."""
    weights = _weights(_turned(query, turn), _turned(key, turn))
    return torch.einsum("bhst,bthq->bshq", weights, _shared(value, query.shape[2]))


def attention_backward_ref(
    grad: Float[Tensor, "B S H Q"],
    query: Float[Tensor, "B S H Q"],
    key: Float[Tensor, "B S G Q"],
    value: Float[Tensor, "B S G Q"],
    turn: Turn | None = None,
) -> tuple[Float[Tensor, "B S H Q"], Float[Tensor, "B S G Q"], Float[Tensor, "B S G Q"]]:
    """Gradients of the query, the key and the value of `attention_ref`."""
    heads, scale = query.shape[2], 1 / math.sqrt(query.shape[3])
    turned, turned_key = _turned(query, turn), _turned(key, turn)
    weights, across = _weights(turned, turned_key), _shared(value, heads)
    of_weights = torch.einsum("bshq,bthq->bhst", grad, across)
    pull = (grad * torch.einsum("bhst,bthq->bshq", weights, across)).sum(-1).transpose(1, 2).unsqueeze(-1)
    of_scores = weights * (of_weights - pull) * scale
    of_query = torch.einsum("bhst,bthq->bshq", of_scores, _shared(turned_key, heads))
    of_key = torch.einsum("bhst,bshq->bthq", of_scores, turned)
    of_value = torch.einsum("bhst,bshq->bthq", weights, grad)
    return _turned_back(of_query, turn), _turned_back(_of_group(of_key, key), turn), _of_group(of_value, value)


def _weights(query: Tensor, key: Tensor) -> Tensor:
    scores = torch.einsum("bshq,bthq->bhst", query, _shared(key, query.shape[2])) / math.sqrt(query.shape[3])
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1)


def _shared(x: Tensor, heads: int) -> Tensor:
    """The head of a group for each of the query heads that share it."""
    return x.repeat_interleave(heads // x.shape[2], dim=2)


def _of_group(grad: Tensor, like: Tensor) -> Tensor:
    return grad.reshape(*like.shape[:3], -1, like.shape[3]).sum(3)


def _turned(x: Tensor, turn: Turn | None) -> Tensor:
    if turn is None:
        return x
    cosine, sine = (part.to(x.dtype).view(*x.shape[:2], 1, -1) for part in turn)
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


def _turned_back(grad: Tensor, turn: Turn | None) -> Tensor:
    if turn is None:
        return grad
    cosine, sine = (part.to(grad.dtype).view(*grad.shape[:2], 1, -1) for part in turn)
    first, second = (grad * sine).chunk(2, dim=-1)
    return grad * cosine + torch.cat((second, -first), dim=-1)
