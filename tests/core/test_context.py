"""What a router may know, and noise that is the same whenever it is asked again."""

import pytest
import torch

from workbench.core import RouteContext
from workbench.core.context import Watcher

PLACE = ("seed", "step", "micro_batch", "data_rank", "layer", "iteration")


def test_at_changes_a_copy():
    context = RouteContext(layer=1, step=7)
    later = context.at(step=8)
    assert (context.step, later.step, later.layer) == (7, 8, 1)


def test_without_tokens_forgets_the_batch_and_keeps_the_place():
    index, bias = torch.arange(3), torch.zeros(4)
    context = RouteContext(
        layer=2,
        phase="train",
        sequence=index,
        position=index,
        token_id=index,
        label=index,
        bias=bias,
        attention=lambda values, query=None, key=None: (values, values),
    )
    bare = context.without_tokens()
    assert (bare.sequence, bare.position, bare.token_id, bare.label, bare.attention) == (None,) * 5
    assert (bare.layer, bare.phase, bare.bias is bias) == (2, "train", True)


@pytest.mark.parametrize(
    ("phase", "is_training"), [("train", True), ("eval", False), ("prefill", False), ("decode", False)]
)
def test_only_training_is_training(phase, is_training):
    assert RouteContext(phase=phase).is_training is is_training


def test_noise_is_the_same_when_asked_again():
    context = RouteContext(seed=3, step=5, layer=1)
    assert torch.equal(context.noise((4, 3)), context.at(phase="train").noise((4, 3)))
    assert torch.equal(context.noise((4,), normal=True), context.noise((4,), normal=True))


@pytest.mark.parametrize("field", PLACE)
def test_noise_differs_from_place_to_place(field):
    here, there = RouteContext(), RouteContext(**{field: 1})
    assert not torch.equal(here.noise((8,)), there.noise((8,)))


def test_each_draw_is_its_own():
    context = RouteContext()
    draws = [context.noise((8,), draw) for draw in range(4)]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


def test_places_do_not_run_into_one_another():
    # layer 1 of step 0 and layer 0 of step 1 are other places, whatever the sum of the indices.
    places = [RouteContext(**{a: 1, b: 2}) for a in PLACE for b in PLACE if a != b]
    assert len({float(place.noise(())) for place in places}) == len(places)


def test_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    RouteContext().noise((100,))
    RouteContext().noise((100,), normal=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_ignores_the_global_generator():
    torch.manual_seed(1)
    first = RouteContext().noise((8,))
    torch.manual_seed(2)
    assert torch.equal(RouteContext().noise((8,)), first)


def test_noise_is_uniform_or_normal():
    uniform = torch.cat([RouteContext(step=s).noise((1000,)) for s in range(20)])
    normal = torch.cat([RouteContext(step=s).noise((1000,), normal=True) for s in range(20)])
    assert 0 <= uniform.min() < 0.001 < 0.999 < uniform.max() < 1
    # four standard errors of 20,000 draws.
    assert abs(float(uniform.mean()) - 0.5) < 4 * (1 / 12 / 20_000) ** 0.5
    assert abs(float(normal.mean())) < 4 / 20_000**0.5
    assert abs(float(normal.var()) - 1) < 4 * (2 / 20_000) ** 0.5


def test_attend_passes_its_arguments_to_the_layer():
    places = []

    def attention(values, query=None, key=None, *, place):
        places.append(place)
        heads = 1 if query is None else query.shape[1]
        return values.unsqueeze(1).expand(-1, heads, -1) * 2, values if query is None else query.flatten(1)

    context, values = RouteContext(attention=attention), torch.ones(3, 2)
    mixed, memory = context.attend(values)
    assert (mixed.shape, float(mixed.sum()), memory is values) == ((3, 1, 2), 12, True)
    assert context.attend(values, torch.ones(3, 2, 4), torch.ones(3, 2, 4))[1].shape == (3, 8)
    # each pass through a layer, and a shadow, remembers in a place of its own.
    context.at(iteration=1, is_shadow=True).attend(values)
    assert places == [(0, False), (0, False), (1, True)]


def test_attending_without_attention_says_what_to_do():
    message = (
        "this router reads attention, and there is none here (slots, or a layer without attention); "
        "use a router that looks at one token at a time"
    )
    with pytest.raises(ValueError) as error:
        RouteContext().attend(torch.ones(1, 1))
    assert str(error.value) == message


class Asked(torch.nn.Module):
    """A router that keeps what it was told."""

    def forward(self, x, context):
        self.seen, self.context = x, context
        return "a decision"


def test_a_watcher_sees_the_hidden_states_detached_and_its_own_context():
    router, shared = Asked(), torch.nn.Linear(1, 1)
    watcher = Watcher(name="x", router=router, shared=shared, previous="below")
    x = torch.ones(2, 3, requires_grad=True)
    context = RouteContext(layer=1, bias=torch.zeros(4), previous="other", watcher=watcher)
    assert watcher.decide(x, context) == "a decision"
    assert not router.seen.requires_grad
    told = router.context
    assert (told.layer, told.is_shadow, told.bias, told.watcher) == (1, True, None, None)
    assert told.shared is shared
    assert (told.previous, watcher.after("later").previous) == ("below", "later")
