"""The tokens of a pass reach the prefetcher before the first layer runs: its experts are guessed too."""

import json

import pytest

from workbench.core import Spec
from workbench.model.generate import Sampling, generate
from workbench.model.weights import load
from workbench.offload.path_predictor import train_path_predictor
from workbench.offload.replay.recorded import requests_of
from workbench.trace import Recorder

TEXTS = [[[5, 6, 7, 8, 9, 11, 2]], [[9, 1], [10, 11, 50]], [[30, 31, 32]]]
# one call a token, and the layers one by one.
MODELS = {"token": {"dense_layers": (), "num_layers": 2}, "layers": {}}


def recorded(model):
    """What a model in memory writes after these prompts."""
    recorder = Recorder(attrs={"model": json.dumps(model.config.to_json())})
    for prompts in TEXTS:
        for done in generate(model, prompts, Sampling(max_new_tokens=30, temperature=0)):
            recorder.add(done.batch, done.output, phase=done.phase, step=0)
    return recorder.trace()


@pytest.fixture(scope="module", params=MODELS)
def learned(request, checkpoint, tmp_path_factory):
    """A model's folder, and a prefetcher that has learned its ways."""
    folder, where = checkpoint(**MODELS[request.param]), tmp_path_factory.mktemp("predictor")
    trace = recorded(load(folder))
    train_path_predictor(trace, where, window=2, epochs=30, learning_rate=1e-2, held_out=0.05)
    return folder, Spec("routing_path", {"folder": str(where)}), trace


@pytest.fixture
def first_layer(learned, opened, steps, resident, assert_same, check_books):
    """Kinds of what happened to the requests of the first layer with experts; outputs and books are checked."""

    def kinds(prompts, **options):
        folder, prefetch, _ = learned
        offloaded = opened(folder, budget="40%", prefetch=prefetch, **options)
        events = []
        logits = steps(offloaded.model, prompts, after=lambda done, step: events.extend(offloaded.engine.drain(step)))
        assert_same(logits, resident(folder, prompts))
        check_books(offloaded.engine)
        return [event.kind for event in events if event.key.layer == 0 and event.kind != "evict"]

    return kinds


@pytest.mark.parametrize("prompts", TEXTS, ids=len)
def test_experts_of_the_first_layer_are_guessed_and_outputs_stay(first_layer, prompts, monkeypatch):
    told = first_layer(prompts)
    assert {"prefetch", "prefetch_late"} & {*told}
    monkeypatch.setattr("workbench.offload.model.tell_passes", lambda model, engine: None)
    alone = first_layer(prompts)
    # whether a guess comes in time is the disk's affair; that it is asked for is not.
    assert told.count("miss") < alone.count("miss")
    assert len(told) == len(alone)


def test_it_goes_with_a_host_between_device_and_disk(first_layer):
    assert {"prefetch", "prefetch_late"} & {*first_layer(TEXTS[0], host_budget="40%")}


def test_the_tokens_told_are_those_of_the_trace(learned, opened, steps):
    folder, prefetch, _ = learned
    offloaded, told = opened(folder, budget="40%", prefetch=prefetch), []
    prefetcher = offloaded.engine.loop.prefetcher
    begin = prefetcher.begin_pass
    prefetcher.begin_pass = lambda token_ids: told.append(tuple(token_ids)) or begin(token_ids)
    recorder = Recorder(attrs={"model": json.dumps(offloaded.model.config.to_json())})
    # prompts of different lengths: the padding of the shorter is told to nobody.
    for done in generate(offloaded.model, TEXTS[1], Sampling(max_new_tokens=4, temperature=0)):
        recorder.add(done.batch, done.output, phase=done.phase, step=0)
    requests = requests_of(recorder.trace())
    firsts = dict(zip(requests.token.tolist(), requests.tokens.tolist(), strict=True))
    assert told == [tuple(requests.token_id[at : at + size].tolist()) for at, size in firsts.items()]
    assert told[0] == (9, 1, 10, 11, 50)


def test_who_reads_no_tokens_is_not_told(learned, opened, steps):
    folder, _, _ = learned
    offloaded = opened(folder, budget="40%", prefetch=Spec("markov"))
    prefetcher = offloaded.engine.loop.prefetcher
    prefetcher.begin_pass = lambda token_ids: pytest.fail("nobody asked for tokens")
    begun = []
    begin = prefetcher.begin_sequence
    prefetcher.begin_sequence = lambda: begun.append(begin())
    steps(offloaded.model, TEXTS[0])
    assert len(begun) == 1
