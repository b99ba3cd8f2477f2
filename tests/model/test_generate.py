import pytest
import torch

from workbench.core import Spec
from workbench.model.generate import Sampling, generate

PROMPTS = [[5, 6, 7, 8], [9], [10, 11]]


def tokens_of(model, prompts, sampling, **options) -> list[list[int]]:
    """The tokens of every prompt, up to its end."""
    rows: list[list[int]] = [[] for _ in prompts]
    for step in generate(model, prompts, sampling, **options):
        for row, token, is_new in zip(rows, step.token_ids.tolist(), step.is_new.tolist(), strict=True):
            if is_new:
                row.append(token)
    return rows


@torch.no_grad()
def test_greedy_takes_the_most_probable_token_of_the_whole_prefix(make_model):
    model, sampling = make_model(), Sampling(max_new_tokens=12, temperature=0)
    for prompt, tokens in zip(PROMPTS, tokens_of(model, PROMPTS, sampling), strict=True):
        prefix = list(prompt)
        for token in tokens:
            assert token == model(torch.tensor([prefix])).logits[0, -1].argmax()
            prefix.append(token)


@pytest.mark.parametrize("router", ["top_k", "switch", "hash", "random", "dense", "gshard"])
def test_a_cache_and_recomputing_give_the_same_tokens(make_model, router):
    model, sampling = make_model(router=Spec(router)), Sampling(max_new_tokens=10, temperature=0.8)
    cached = tokens_of(model, PROMPTS, sampling, seed=4)
    assert cached == tokens_of(model, PROMPTS, sampling, seed=4, recompute=True)


def test_a_sequence_does_not_depend_on_its_batch_mates(make_model):
    model, sampling = make_model(), Sampling(max_new_tokens=10, temperature=0.9, top_k=40, top_p=0.95)
    together = tokens_of(model, PROMPTS, sampling, seed=2)
    assert together[0] == tokens_of(model, PROMPTS[:1], sampling, seed=2)[0]
    assert together[:2] == tokens_of(model, [PROMPTS[0], PROMPTS[1], [50] * 30], sampling, seed=2)[:2]


def test_the_seed_decides(make_model):
    model, sampling = make_model(), Sampling(max_new_tokens=16)
    torch.manual_seed(1)
    first = tokens_of(model, PROMPTS, sampling, seed=0)
    torch.manual_seed(2)
    assert tokens_of(model, PROMPTS, sampling, seed=0) == first
    assert tokens_of(model, PROMPTS, sampling, seed=1) != first


def test_sequences_with_one_prompt_get_random_streams_of_their_own(make_model):
    rows = tokens_of(make_model(), [[5, 6]] * 3, Sampling(max_new_tokens=16))
    assert rows[0] != rows[1] != rows[2] != rows[0]


def first_tokens(model, sampling: Sampling, count: int) -> set[int]:
    step = next(generate(model, [[5, 6, 7]] * count, sampling))
    return set(step.token_ids.tolist())


@torch.no_grad()
def test_top_k_draws_among_exactly_the_k_most_probable(make_model):
    model = make_model()
    logits = model(torch.tensor([[5, 6, 7]])).logits[0, -1]
    # a high temperature makes the five nearly equal, so all of them come up.
    assert first_tokens(model, Sampling(top_k=5, temperature=20.0), 400) == set(logits.topk(5).indices.tolist())


@torch.no_grad()
@pytest.mark.parametrize("top_p", [0.05, 0.4, 0.9])
def test_top_p_draws_among_the_fewest_that_reach_p(make_model, top_p):
    model = make_model()
    prob, order = (model(torch.tensor([[5, 6, 7]])).logits[0, -1] / 3).softmax(-1).sort(descending=True)
    fewest = next(n for n in range(1, 98) if prob[:n].sum() >= top_p)
    drawn = first_tokens(model, Sampling(top_p=top_p, temperature=3.0), 3000)
    assert drawn <= set(order[:fewest].tolist())
    assert len(drawn) > 0.9 * fewest


@torch.no_grad()
def test_sampling_follows_the_probabilities(make_model):
    model, count = make_model(), 2000
    prob = model(torch.tensor([[5, 6, 7]])).logits[0, -1].softmax(-1)
    step = next(generate(model, [[5, 6, 7]] * count, Sampling()))
    frequency = torch.bincount(step.token_ids, minlength=97) / count
    # five standard deviations of a share of `count` draws.
    assert ((frequency - prob).abs() <= 5 * (prob * (1 - prob) / count).sqrt() + 1e-3).all()


def test_an_end_token_ends_its_sequence_and_then_the_batch(make_model):
    model, sampling = make_model(), Sampling(max_new_tokens=14, temperature=0)
    free = tokens_of(model, PROMPTS, sampling)
    end = free[0][3]
    stopped = tokens_of(model, PROMPTS, Sampling(max_new_tokens=14, temperature=0, end_ids=(end,)))
    for row, whole in zip(stopped, free, strict=True):
        assert row == whole[: whole.index(end) + 1] if end in whole else row == whole
    alone = list(generate(model, PROMPTS[:1], Sampling(max_new_tokens=14, temperature=0, end_ids=(end,))))
    assert len(alone) == free[0].index(end) + 1


def test_steps_say_what_the_model_saw(make_model):
    steps = list(generate(make_model(), PROMPTS, Sampling(max_new_tokens=3)))
    assert [step.phase for step in steps] == ["prefill", "decode", "decode"]
    assert steps[0].batch.token_ids.tolist() == [[5, 6, 7, 8], [0, 0, 0, 9], [0, 0, 10, 11]]
    assert steps[0].batch.mask.sum().item() == 7
    assert steps[1].batch.token_ids[:, 0].tolist() == steps[0].token_ids.tolist()
    assert steps[1].output.sites[0].routing.num_tokens == 3
    whole = list(generate(make_model(), PROMPTS, Sampling(max_new_tokens=2), recompute=True))
    assert [step.phase for step in whole] == ["prefill", "prefill"]
    assert whole[1].output.sites[0].routing.num_tokens == 10


def test_a_router_that_sees_the_future_is_refused_unless_it_may_recompute(make_model):
    model = make_model(router=Spec("expert_choice"))
    message = (
        "router 'expert_choice' decides with later tokens in view, so it cannot generate token by token; "
        "swap to a causal router such as top_k, or pass recompute=True"
    )
    with pytest.raises(ValueError, match=message):
        generate(model, PROMPTS, Sampling())
    sampling = Sampling(max_new_tokens=4, temperature=0)
    (tokens,) = tokens_of(model, [[5, 6, 7]], sampling, recompute=True)
    prefix = [5, 6, 7]
    for token in tokens:
        with torch.no_grad():
            assert token == model(torch.tensor([prefix])).logits[0, -1].argmax()
        prefix.append(token)


@pytest.mark.parametrize("prompts", [[], [[1], []]])
def test_an_empty_prompt_is_refused_before_the_first_step(make_model, prompts):
    with pytest.raises(ValueError, match="generate needs at least one token in every prompt; got an empty one"):
        generate(make_model(), prompts, Sampling())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -0.1}, "temperature must be at least 0, got -0.1; 0 takes the most probable token"),
        ({"top_p": 0.0}, "top_p must be between 1e-09 and 1, got 0.0"),
        ({"top_p": 1.5}, "top_p must be between 1e-09 and 1, got 1.5"),
        ({"top_k": -1}, "top_k must be at least 0, got -1; 0 draws among all tokens"),
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 0, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**changes)


def test_no_new_token_is_no_step(make_model):
    assert list(generate(make_model(), PROMPTS, Sampling(max_new_tokens=0))) == []


def test_no_gradient_and_no_weight_is_touched(make_model):
    model = make_model()
    before = [p.clone() for p in model.parameters()]
    step = next(generate(model, PROMPTS, Sampling(max_new_tokens=1)))
    assert not step.output.logits.requires_grad
    assert torch.is_grad_enabled(), "generation must leave gradients on for its caller, between steps too"
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_steps_say_how_much_they_remember(make_model):
    steps = list(generate(make_model(), PROMPTS, Sampling(max_new_tokens=15)))
    # keys and values of two layers, two heads of eight: sixteen columns at first, then twice as many.
    column = 2 * 2 * 2 * 8 * 4 * len(PROMPTS)
    assert [step.cache_bytes // column for step in steps] == [16] * 13 + [32] * 2
    assert {
        step.cache_bytes for step in generate(make_model(), PROMPTS, Sampling(max_new_tokens=2), recompute=True)
    } == {0}
