"""Bits per byte against a sum over single tokens."""

import math

import pytest
import torch

from workbench.core import Batch
from workbench.model.transformer import Transformer, initialise
from workbench.train.evaluate import bits_per_byte
from workbench.train.loss import NOT_SCORED

# Token t stands for t % 4 bytes: special tokens with none, single bytes, and longer pieces.
BYTES = torch.arange(257) % 4


def batches() -> list[Batch]:
    whole = torch.randint(257, (3, 9), generator=torch.Generator().manual_seed(1))
    target = whole[:, 1:].clone()
    target[0, 2:5] = NOT_SCORED
    padded = torch.tensor([[7, 9, 200, 11, 0, 0]])
    mask = torch.tensor([[True] * 4 + [False] * 2])
    return [
        Batch(token_ids=whole[:, :-1], target_ids=target),
        Batch(token_ids=padded, target_ids=torch.tensor([[9, 200, 11] + [NOT_SCORED] * 3]), mask=mask),
    ]


def by_brute_force(model: Transformer) -> float:
    bits, length = 0.0, 0
    with torch.no_grad():
        for batch in batches():
            for row in range(len(batch.token_ids)):
                real = batch.token_ids[row] if batch.mask is None else batch.token_ids[row][batch.mask[row]]
                logits = model(real[None]).logits[0].double()
                for place, target in enumerate(batch.target_ids[row].tolist()):
                    if target != NOT_SCORED:
                        prob = math.exp(float(logits[place, target])) / float(logits[place].exp().sum())
                        bits -= math.log2(prob)
                        length += target % 4
    return bits / length


def test_it_is_the_bits_of_every_scored_token_over_the_bytes_of_all(shape):
    model = initialise(Transformer(shape), 0)
    for parameter in model.parameters():
        parameter.data.mul_(3)
    assert bits_per_byte(model, batches(), BYTES) == pytest.approx(by_brute_force(model), rel=1e-5)


def test_targets_without_a_byte_have_no_rate(shape):
    model = initialise(Transformer(shape), 0)
    only_special = Batch(token_ids=torch.tensor([[1, 2]]), target_ids=torch.tensor([[4, 8]]))
    assert math.isnan(bits_per_byte(model, [only_special], BYTES))
    assert math.isnan(bits_per_byte(model, [], BYTES))


def test_evaluation_leaves_no_gradient_and_drops_nothing(shape):
    model, counts = initialise(Transformer(shape), 0), []
    model.register_forward_hook(lambda module, inputs, output: counts.append(output))
    bits_per_byte(model, batches(), BYTES)
    assert not counts[0].logits.requires_grad
    assert all(torch.equal(s.routing.demand, s.routing.counts) for output in counts for s in output.sites)


def test_an_untrained_model_pays_about_the_bits_of_its_vocabulary(start):
    trainer = start()
    found = trainer.evaluate()
    assert set(found) == {"alphabet_0", "alphabet_1"}
    assert all(value == pytest.approx(math.log2(257), rel=0.02) for value in found.values())
