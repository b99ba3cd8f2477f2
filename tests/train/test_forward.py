"""One forward pass: the batch as it is, in the dtype that is asked for."""

import torch

from workbench.core import Batch, RouteContext
from workbench.model.transformer import Transformer, initialise
from workbench.train.forward import forward_batch, training_context
from workbench.train.precision import FULL_PRECISION, Precision


def batch() -> Batch:
    token_ids = torch.arange(12).reshape(2, 6)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    return Batch(token_ids=token_ids, mask=mask, domain=torch.ones(2, 6, dtype=torch.long))


def test_mask_and_phase_reach_the_model(shape):
    model = initialise(Transformer(shape), 0)
    found = forward_batch(model, batch(), RouteContext(phase="prefill"), FULL_PRECISION)
    assert torch.equal(found.logits, model(batch().token_ids, mask=batch().mask).logits)
    assert [site.routing.num_tokens for site in found.sites] == [10, 10]


def test_the_domain_of_every_token_reaches_the_router(shape):
    model, seen = initialise(Transformer(shape), 0), []
    for layer in model.moe_layers():
        layer.router.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1].label))
    forward_batch(model, batch(), RouteContext(phase="eval"), FULL_PRECISION)
    assert [label.tolist() for label in seen] == [[1] * 10] * 2


def test_products_have_the_dtype_of_the_precision(shape):
    model = initialise(Transformer(shape), 0)
    half = forward_batch(model, batch(), RouteContext(), Precision(torch.bfloat16, "asked for"))
    assert half.logits.dtype == torch.bfloat16
    assert half.sites[0].routing.logit.dtype == torch.float32


def test_recomputed_activations_give_the_same_gradients(shape):
    gradients = []
    for recompute in (False, True):
        model = initialise(Transformer(shape), 0)
        output = forward_batch(model, batch(), RouteContext(phase="train"), FULL_PRECISION, recompute=recompute)
        output.logits.square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_routers_are_told_the_step_and_how_many_there_will_be(make_config):
    context = training_context(make_config(seed=3, num_steps=9), 5, 2)
    assert (context.phase, context.seed, context.step, context.num_steps, context.micro_batch) == ("train", 3, 5, 9, 2)
    assert training_context(make_config(), 5).num_steps == 0
