"""Gradient accumulation is the big batch, in parts."""

from dataclasses import replace

import pytest
import torch

from workbench.core import Batch, RouteContext, Spec
from workbench.model.transformer import Transformer, initialise
from workbench.train.micro_batch import first_sequence, run_micro_batch, tally
from workbench.train.precision import FULL_PRECISION

CONTEXT = RouteContext(phase="train", seed=3)


def batch(rows: int = 4) -> Batch:
    ids = torch.randint(257, (rows, 9), generator=torch.Generator().manual_seed(5))
    return Batch(token_ids=ids[:, :-1].contiguous(), target_ids=ids[:, 1:].contiguous(), domains=("a",))


def half(whole: Batch, part: slice) -> Batch:
    return replace(whole, token_ids=whole.token_ids[part], target_ids=whole.target_ids[part])


@pytest.fixture
def make(shape):
    return lambda router="top_k:balance=0.0": initialise(
        Transformer(replace(shape, router=Spec.parse(router))), 0
    ).double()


def gradients(model: Transformer) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters()}


def test_parts_add_up_to_the_gradient_of_the_whole(make, assert_close):
    whole, parts = make(), make()
    run_micro_batch(whole, batch(), CONTEXT, FULL_PRECISION, share=1.0)
    for index, part in enumerate((slice(0, 2), slice(2, 4))):
        run_micro_batch(parts, half(batch(), part), CONTEXT.at(micro_batch=index), FULL_PRECISION, share=0.5)
    for name, gradient in gradients(whole).items():
        # the loss is taken in float32.
        assert_close(gradients(parts)[name], gradient, dtype=torch.float32)
        assert float(gradient.abs().max()) > 1e-4, name


def test_auxiliary_losses_are_part_of_the_gradient(make):
    with_balance, without = make("top_k:balance=0.5"), make()
    for model in (with_balance, without):
        run_micro_batch(model, batch(), CONTEXT, FULL_PRECISION, share=1.0)
    name = "blocks.0.feed_forward.router.gate.weight"
    assert not torch.allclose(gradients(with_balance)[name], gradients(without)[name])


def test_what_is_reported_is_what_was_computed(make):
    model = make("top_k:balance=0.5,z=0.1")
    part, output = run_micro_batch(model, batch(), CONTEXT, FULL_PRECISION, share=1.0)
    log_prob = output.logits.float().log_softmax(-1).gather(-1, batch().target_ids[..., None])
    assert part.loss == pytest.approx(-log_prob.mean().item(), rel=1e-5)
    assert part.tokens == 32
    assert part.sites == output.sites
    assert part.aux.weights == {"balance": 0.5, "z": 0.1}


def test_padding_is_not_counted(make):
    mask = torch.ones(4, 8, dtype=torch.bool)
    mask[0, 5:] = False
    padded = replace(batch(), mask=mask, target_ids=batch().target_ids.masked_fill(~mask, -100))
    part, _ = run_micro_batch(make(), padded, CONTEXT, FULL_PRECISION)
    assert part.tokens == 29


def test_without_a_share_there_is_no_gradient(make):
    model = make()
    _, output = run_micro_batch(model, batch(), CONTEXT, FULL_PRECISION)
    assert not output.logits.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_a_tally_sums_counts_and_averages_losses(make):
    model = make("switch")
    parts = [
        run_micro_batch(model, half(batch(), part), CONTEXT, FULL_PRECISION)[0] for part in (slice(0, 1), slice(1, 4))
    ]
    tallies = tally(parts)
    assert [own.layer for own in tallies] == [0, 1]
    for index, own in enumerate(tallies):
        routings = [part.sites[index].routing for part in parts]
        assert own.demand.tolist() == (routings[0].demand + routings[1].demand).tolist()
        assert own.kept.tolist() == (routings[0].counts + routings[1].counts).tolist()
        assert own.tokens == int(own.demand.sum()) == 32
        balances = [part.aux.per_site[index]["balance"] for part in parts]
        assert own.losses == {"balance": pytest.approx(sum(balances) / 2)}


def test_of_a_long_sequence_the_beginning_is_tried():
    ids = torch.arange(2 * 300).reshape(2, 300)
    one = first_sequence(Batch(token_ids=ids, target_ids=ids + 1, domains=("a",), domain=torch.zeros(2, 300).long()))
    assert torch.equal(one.token_ids, ids[:1, :128])
    assert torch.equal(one.target_ids, ids[:1, :128] + 1)
    assert one.domain.shape == (1, 128)


def test_the_first_sequence_keeps_what_is_known_of_it():
    one = first_sequence(replace(batch(), domain=torch.zeros(4, 8, dtype=torch.long)))
    assert torch.equal(one.token_ids, batch().token_ids[:1])
    assert torch.equal(one.target_ids, batch().target_ids[:1])
    assert (one.domain.shape, one.mask, one.domains) == ((1, 8), None, ("a",))
