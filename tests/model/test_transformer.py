import math

import pytest
import torch

from workbench.core import RouteContext, Spec
from workbench.model.kv_cache import KVCache
from workbench.model.transformer import Transformer, initialise


def ids_of(*shape: int) -> torch.Tensor:
    return torch.randint(0, 97, shape)


def initialised(config, seed: int = 0) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in initialise(Transformer(config), seed).named_parameters()}


@torch.no_grad()
def test_a_later_token_changes_nothing_before_it(make_model, assert_close):
    model, ids = make_model(), ids_of(2, 12)
    before = model(ids).logits
    changed = ids.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 97
    after = model(changed).logits
    # not bit for bit: the token may change how many rows an expert multiplies at once.
    assert_close(after[:, :7], before[:, :7])
    assert ((after - before)[:, 7:].abs().amax(-1) > 1e-3).all()


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_batch_mates_change_nothing(make_model, side, assert_close):
    model, lengths = make_model(shared_width=8, shared_gate=True), (9, 4, 1)
    ids, columns = ids_of(3, 9), torch.arange(9)
    mask = torch.stack([columns < n if side == "right" else columns >= 9 - n for n in lengths])
    together = model(ids, mask=mask)
    for row in range(3):
        alone = model(ids[row : row + 1, mask[row]])
        assert_close(together.logits[row, mask[row]], alone.logits[0])
        for site, own in zip(together.sites, alone.sites, strict=True):
            start = sum(lengths[:row])
            assert torch.equal(site.routing.expert[start : start + lengths[row]], own.routing.expert)


@torch.no_grad()
@pytest.mark.parametrize("pieces", [(1,) * 12, (5, 4, 3), (11, 1)])
def test_a_cache_gives_the_logits_of_the_whole_sequence(make_model, pieces, assert_close):
    model, ids, cache, got = make_model(), ids_of(2, 12), KVCache(2), []
    for part in ids.split(pieces, dim=1):
        got.append(model(part, cache=cache).logits)
    assert_close(torch.cat(got, dim=1), model(ids).logits)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 5), (2, 0), (0, 3)])
def test_small_and_empty_batches(make_model, shape):
    out = make_model()(ids_of(*shape))
    assert out.logits.shape == (*shape, 97) and out.logits.isfinite().all()
    assert all(site.routing.num_tokens == math.prod(shape) for site in out.sites)


@pytest.mark.parametrize("router", ["top_k", "switch", "expert_choice"])
def test_recomputing_activations_changes_no_gradient(make_model, router):
    model, ids, context = make_model(router=Spec(router)), ids_of(3, 8), RouteContext(phase="train", seed=5, step=3)
    results = []
    for recompute in (False, True):
        model.zero_grad()
        out = model(ids, context=context, recompute=recompute)
        auxiliary = sum((site.routing.prob.square().sum() for site in out.sites), torch.zeros(()))
        (out.logits.square().mean() + auxiliary).backward()
        results.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert all(gradient.abs().sum() > 0 for gradient in results[0])


def test_recomputing_keeps_less_for_backward(make_model):
    model, ids = make_model(num_layers=4), ids_of(4, 32)

    def kept(recompute: bool) -> int:
        sizes: list[int] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(ids, recompute=recompute)
        return sum(sizes)

    assert kept(True) < 0.5 * kept(False)


def test_the_context_reaches_every_layer(make_model, monkeypatch):
    model, seen = make_model(num_layers=3, dense_layers=(1,), dense_width=8), []
    router = type(next(model.moe_layers()).router)
    inner = router.forward
    monkeypatch.setattr(router, "forward", lambda self, x, c: seen.append(c) or inner(self, x, c))
    ids, label = ids_of(2, 3), torch.tensor([[0, 0, 0], [4, 4, 4]])
    out = model(ids, label=label, context=RouteContext(phase="eval", step=9))
    assert [(c.layer, c.num_layers, c.phase, c.step) for c in seen] == [(0, 2, "eval", 9), (1, 2, "eval", 9)]
    assert seen[0].token_id.tolist() == ids.flatten().tolist() and seen[0].label.tolist() == [0, 0, 0, 4, 4, 4]
    assert seen[0].sequence.tolist() == [0, 0, 0, 1, 1, 1] and seen[1].position.tolist() == [0, 1, 2] * 2
    assert seen[0].previous is None and seen[1].previous is out.sites[0].routing


@torch.no_grad()
def test_a_ban_moves_tokens_in_its_layer_alone(make_model):
    model, ids = make_model(), ids_of(2, 20)
    free, bias = model(ids).sites, torch.zeros(2, 6)
    bias[1, 3] = -torch.inf
    banned = model(ids, bias=bias).sites
    assert (free[1].routing.expert == 3).any() and not (banned[1].routing.expert == 3).any()
    assert torch.equal(free[0].routing.expert, banned[0].routing.expert)


@pytest.mark.parametrize("bad", [-1, 97])
def test_a_token_outside_the_vocabulary_is_refused(make_model, bad):
    message = rf"token ids must lie in 0\.\.96, got {bad}; use the tokenizer that the model was trained with"
    with pytest.raises(ValueError, match=message):
        make_model()(torch.tensor([[3, bad]]))


def test_one_matrix_serves_both_ends_when_tied(make_config):
    tied, untied = Transformer(make_config()), Transformer(make_config(tie_embeddings=False))
    assert tied.head is None
    assert untied.num_parameters() - tied.num_parameters() == 97 * 32


def test_active_parameters_count_the_chosen_experts_only(make_model):
    model = make_model(dense_layers=(0,), dense_width=8)
    one = 3 * 32 * 24
    assert model.num_parameters() - model.num_parameters(choices_per_token=2) == 4 * one


def test_initial_weights_depend_on_the_seed_and_on_nothing_else(make_config):
    config = make_config()
    torch.manual_seed(1)
    first = initialised(config)
    torch.manual_seed(2)
    again, other = initialised(config), initialised(config, seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if first[name].dim() > 1)


def test_initial_weights_have_the_stated_spread(make_config):
    config = make_config(width=128, vocab_size=512, attention_bias=True)
    weights = initialised(config)
    assert weights["embedding.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert weights["blocks.0.feed_forward.experts.gate_up"].std().item() == pytest.approx(0.02, rel=0.02)
    for writer in ("attention.output.weight", "feed_forward.experts.down"):
        assert weights[f"blocks.1.{writer}"].std().item() == pytest.approx(0.01, rel=0.05)
    assert torch.equal(weights["norm.weight"], torch.ones(128))
    assert torch.equal(weights["blocks.0.attention.query.bias"], torch.zeros(128 // 128 * 32))


def test_another_router_leaves_every_other_weight(make_config):
    model = initialise(Transformer(make_config()), 0)
    kept = {n: p.clone() for n, p in model.named_parameters() if ".router." not in n}
    model.set_router(Spec("switch"), seed=1)
    assert all(torch.equal(p, kept[n]) for n, p in model.named_parameters() if ".router." not in n)
    assert model.config.router == Spec("switch")
    assert all(layer.router_name == "switch" for layer in model.moe_layers())
    fresh = initialised(make_config(router=Spec("switch")))
    assert all(torch.equal(kept[n], fresh[n]) for n in kept)


def test_a_router_that_cannot_be_built_changes_nothing(make_model):
    model = make_model()
    before = [layer.router for layer in model.moe_layers()]
    with pytest.raises(LookupError, match="did you mean 'switch'"):
        model.set_router(Spec("swich"), seed=0)
    with pytest.raises(ValueError, match="top_k must be between 1 and num_experts=6, got 7"):
        model.set_router(Spec("top_k", {"top_k": 7}), seed=0)
    assert [layer.router for layer in model.moe_layers()] == before and model.config.router.args == {"top_k": 2}


def test_it_knows_whether_a_router_sees_the_future(make_model):
    assert make_model().is_causal
    assert not make_model(router=Spec("expert_choice")).is_causal


def test_html_tells_the_size(make_model):
    assert "parameters" in make_model()._repr_html_() and len(make_model()._repr_html_()) < 5000
