"""A token in one call for all layers: the bits of the layers one by one, and only where nothing more is asked."""

import copy
from dataclasses import replace

import pytest
import torch

from workbench.core import Spec
from workbench.model import decoding
from workbench.model.generate import Sampling, generate
from workbench.model.kv_cache import KVCache
from workbench.model.layer import DenseLayer
from workbench.model.shadow import Shadow

PROMPT = [5, 6, 7, 8]
PLAIN = [
    Spec("top_k", {"top_k": 2}),
    Spec("top_k", {"top_k": 3, "renormalise": False, "scale": 1.5}),
    Spec("top_k", {"top_k": 2, "score": "sigmoid", "selection_bias": True}),
    Spec("top_k", {"top_k": 6, "score": "softmax_chosen"}),
]


def passes(model, tokens=(9, 10, 11), **options):
    """The outputs of a prompt and then of some tokens, given without looking at what was drawn."""
    cache = KVCache(1)
    with torch.no_grad():
        outputs = [model(torch.tensor([PROMPT]), cache=cache)]
        outputs += [model(torch.tensor([[token]]), cache=cache, **options) for token in tokens]
    return outputs


def layer_by_layer(model, **options):
    hook = model.blocks[0].register_forward_hook(lambda *arguments: None)
    try:
        return passes(model, **options)
    finally:
        hook.remove()


def assert_same(found, wanted):
    for own, other in zip(found, wanted, strict=True):
        assert torch.equal(own.logits, other.logits)
        assert len(own.sites) == len(other.sites)
        for site, twin in zip(own.sites, other.sites, strict=True):
            facts = (site.layer, site.iteration, site.module, site.router, site.is_shadow, site.routing.num_experts)
            assert facts == (twin.layer, twin.iteration, twin.module, twin.router, twin.is_shadow, 6)
            for name in ("expert", "weight", "prob", "logit"):
                assert torch.equal(vars(site.routing)[name], vars(twin.routing)[name])
        for name in ("sequence", "position", "token_id", "num_layers", "phase"):
            assert torch.equal(
                *(
                    torch.as_tensor(hash(one) if isinstance(one, str) else one)
                    for one in (vars(own.context)[name], vars(other.context)[name])
                )
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("router", PLAIN, ids=str)
def test_it_gives_the_bits_of_the_layers_one_by_one(make_model, calls, router, dtype):
    model = make_model(router=router, dtype=dtype)
    found = passes(model)
    # a bias below float32 is not read where it lies.
    is_read = dtype == torch.float32 or "selection_bias" not in router.args
    assert calls == [9, 10, 11] * is_read
    assert_same(found, layer_by_layer(model))
    assert len(calls) == 3 * is_read


@pytest.mark.parametrize(
    "changes",
    [{"tie_embeddings": False}, {"qk_norm": "width", "clip_qkv": 0.4}, {"attention_bias": True, "qk_norm": "none"}],
    ids=["untied", "clipped", "biased"],
)
def test_every_form_of_attention_and_head_goes_through_it(make_model, calls, changes):
    model = make_model(**changes)
    assert_same(passes(model), layer_by_layer(model))
    assert len(calls) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"router": Spec("switch")},
        {"router": Spec("top_k", {"top_k": 2, "groups": 2, "groups_kept": 1})},
        {"shared_width": 8},
        {"iterations": 2, "wiring": "chain"},
        {"dense_layers": (0,), "dense_width": 16},
        {"router": Spec("moepp")},
        {"dtype": torch.float64},
    ],
    ids=str,
)
def test_what_is_more_goes_layer_by_layer(make_model, calls, changes):
    assert len(passes(make_model(**changes))) == 4
    assert calls == []


def test_steering_watching_labels_and_gradients_go_layer_by_layer(make_model, calls):
    model = make_model()
    plain = passes(model)
    del calls[:]
    for options in ({"bias": torch.zeros(2, 6)}, {"shadow": Shadow(model.config, Spec("switch"))}):
        found = passes(model, **options)
        assert all(torch.equal(own.logits, other.logits) for own, other in zip(found, plain, strict=True))
    assert [site.is_shadow for site in found[1].sites] == [False, True] * 2
    bans = torch.zeros(2, 6)
    bans[:, plain[1].sites[0].routing.expert[0, 0]] = -torch.inf
    assert not torch.equal(passes(model, bias=bans)[1].logits, plain[1].logits)
    model.steering = bans
    assert not torch.equal(passes(model)[1].logits, plain[1].logits)
    model.steering = None
    passes(model, label=torch.zeros(1, 1, dtype=torch.int64))
    cache = KVCache(1)
    model(torch.tensor([PROMPT]), cache=cache)
    assert model(torch.tensor([[9]]), cache=cache).logits.requires_grad
    assert calls == []


def change_a_weight_in_place(model):
    model.blocks[1].feed_forward.experts.down.data.mul_(1.5)


def move_a_weight(model):
    weight = model.blocks[1].attention.output.weight
    weight.data = weight.data * 1.5


def replace_a_parameter(model):
    norm = model.blocks[0].feed_forward.norm
    norm.weight = torch.nn.Parameter(norm.weight.detach() * 1.5)


def replace_the_experts(model):
    layer = model.blocks[1].feed_forward
    layer.experts = copy.deepcopy(layer.experts)
    layer.experts.down.data.mul_(1.5)


def replace_a_block(model):
    model.blocks[1] = copy.deepcopy(model.blocks[0])
    model.blocks[1].attention.index = 1


def choose_more(model):
    model.blocks[0].feed_forward.router.top_k = 3
    model.blocks[1].feed_forward.router.top_k = 3


def scale_the_choice(model):
    model.blocks[0].feed_forward.router.scale = 2.0


def swap_the_router(model):
    model.set_router(Spec("top_k", {"top_k": 1}), seed=3)


def add_a_shared_expert(model):
    layer = model.blocks[1].feed_forward
    layer.shared = DenseLayer(replace(model.config, dense_width=16)).mlp
    enlarged = torch.Generator().manual_seed(1)
    for parameter in layer.shared.parameters():
        parameter.data.normal_(generator=enlarged)


def change_the_embedding(model):
    model.embedding.weight = torch.nn.Parameter(model.embedding.weight.detach() * 1.5)


CHANGES = [
    change_a_weight_in_place,
    move_a_weight,
    replace_a_parameter,
    replace_the_experts,
    replace_a_block,
    choose_more,
    scale_the_choice,
    swap_the_router,
    add_a_shared_expert,
    change_the_embedding,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_between_two_tokens_counts_from_the_next_one(make_model, calls, change):
    outputs = []
    for is_watched in (False, True):
        model, cache = make_model(), KVCache(1)
        with torch.no_grad():
            model(torch.tensor([PROMPT]), cache=cache)
            before = model(torch.tensor([[9]]), cache=cache)
            change(model)
            if is_watched:
                model.blocks[0].register_forward_hook(lambda *arguments: None)
            after = model(torch.tensor([[9]]), cache=cache)
        assert not torch.equal(before.logits, after.logits)
        outputs.append(after)
    assert_same(outputs[:1], outputs[1:])
    # the first token twice, and the second where nobody listens, unless the model is more than the call then.
    assert len(calls) == 3 - (change is add_a_shared_expert)


def test_a_hook_anywhere_is_called(make_model, calls):
    model, heard = make_model(), []
    for name, module in model.named_modules():
        if name and not isinstance(module, torch.nn.ModuleList):
            del heard[:], calls[:]
            hook = module.register_forward_hook(lambda *arguments: heard.append(1))
            passes(model, tokens=(9,))
            hook.remove()
            assert len(heard) == 2, name
            assert calls == [], name
    passes(model, tokens=(9,))
    assert calls == [9]


def test_padding_and_several_texts_go_layer_by_layer(make_model, calls):
    model, cache = make_model(), KVCache(1)
    with torch.no_grad():
        model(torch.tensor([[0, *PROMPT]]), mask=torch.tensor([[False] + [True] * 4]), cache=cache)
        padded = model(torch.tensor([[9]]), cache=cache)
        cache = KVCache(2)
        model(torch.tensor([PROMPT] * 2), cache=cache)
        model(torch.tensor([[9], [9]]), cache=cache)
    assert calls == []
    torch.testing.assert_close(padded.logits, passes(model, tokens=(9,))[1].logits)


def test_two_texts_may_be_written_in_turns_and_grow_beyond_their_room(make_model, calls):
    model, sampling = make_model(), Sampling(max_new_tokens=40, temperature=0.8)
    alone = [[int(step.token_ids[0]) for step in generate(model, [[word]], sampling, seed=word)] for word in (3, 4)]
    pairs = zip(*(generate(model, [[word]], sampling, seed=word) for word in (3, 4)), strict=True)
    together = [[int(step.token_ids[0]) for step in pair] for pair in pairs]
    assert [list(text) for text in zip(*together, strict=True)] == alone
    # the prompts, of one token each, come with a mask.
    assert len(calls) == 4 * 39


def test_a_model_and_its_cache_are_let_go(make_model):
    model = make_model()
    passes(model)
    assert model.blocks in decoding._DECODERS
    before = len(decoding._DECODERS)
    del model
    assert len(decoding._DECODERS) == before - 1


def test_sites_are_a_sequence(make_model):
    sites = passes(make_model())[1].sites
    assert [site.layer for site in sites] == [0, 1]
    assert sites[-1] is sites[1]
    assert sites[:1] == (sites[0],)
    assert passes(make_model())[1].active_sites[0].module == "blocks.0.feed_forward"
