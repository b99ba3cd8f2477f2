"""Decoding in one call a token with experts from disk: the bits and the events of the layers one by one."""

import pytest
import torch
from workbench_kernels.cpu import step, tokens

from workbench.core import Spec
from workbench.offload.formats import FORMATS

PROMPT = [[5, 6, 7]]
# the plain model: every block has experts, which the router of the paper chooses.
PLAIN = {"dense_layers": (), "num_layers": 2}


@pytest.fixture
def written(checkpoint, opened, steps):
    """Logits, events and the engine of a text, in one call a token or layer by layer."""

    def write(is_fused, *, dtype=torch.float32, **options):
        offloaded, events = opened(checkpoint(dtype=dtype, **PLAIN), **options), []
        hook = None if is_fused else offloaded.model.blocks[0].register_forward_hook(lambda *arguments: None)
        logits = steps(offloaded.model, PROMPT, after=lambda done, step: events.extend(offloaded.engine.drain(step)))
        if hook is not None:
            hook.remove()
        return logits, [(one.step, one.token, one.key, one.kind, one.bytes) for one in events], offloaded.engine

    return write


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_policy_sees_what_it_sees_layer_by_layer(
    checkpoint, written, resident, calls, assert_same, check_books, policy_name, dtype
):
    options = {"budget": "40%", "policy": Spec(policy_name), "dtype": dtype}
    logits, events, engine = written(True, **options)
    assert len(calls) == 3
    assert_same(logits, resident(checkpoint(dtype=dtype, **PLAIN), PROMPT))
    check_books(engine)
    others, other_events, _ = written(False, **options)
    assert_same(logits, others)
    assert events == other_events
    assert {kind for *_, kind, _ in events} >= {"miss", "evict"}


def test_every_prefetcher_sees_what_it_sees_layer_by_layer(
    checkpoint, written, resident, calls, assert_same, check_books, prefetcher_name
):
    options = {"budget": "40%", "prefetch": prefetcher_name and Spec(prefetcher_name)}
    logits, _, engine = written(True, **options)
    assert len(calls) == 3
    assert_same(logits, resident(checkpoint(**PLAIN), PROMPT))
    check_books(engine)
    _, _, other = written(False, **options)
    # when a guess arrives is the disk's affair; how many experts are asked for is not.
    assert engine.ledger.requests == other.ledger.requests


def test_experts_that_are_there_compute_while_others_are_read(checkpoint, written, resident, assert_same, monkeypatch):
    names = []

    def run(name, call):
        names.append(name)
        tokens.run(name, call)

    monkeypatch.setattr(step, "run", run)
    logits, events, _ = written(True, budget="60%")
    assert_same(logits, resident(checkpoint(**PLAIN), PROMPT))
    # a layer of a token has both in its events where its part was computed early.
    met = {}
    for _, token, key, kind, _ in events:
        if kind != "evict" and token >= len(PROMPT[0]):
            met.setdefault((token, key.layer), set()).add(kind)
    assert names.count("workbench_experts") == [kinds >= {"hit", "miss"} for kinds in met.values()].count(True) > 0


def test_experts_that_are_not_exact_go_layer_by_layer(written, calls):
    for name in FORMATS.names():
        if not FORMATS.get(name)().is_lossless:
            written(True, budget="60%", format=Spec(name))
    written(True, budget="60%", skip=0.2)
    assert calls == []


def test_a_disk_that_fails_under_a_token_gives_an_error_and_then_the_right_tokens(
    checkpoint, opened, steps, resident, assert_same, disk, calls
):
    folder = checkpoint(**PLAIN)
    offloaded = opened(folder, budget="40%")
    steps(offloaded.model, PROMPT)
    disk.is_broken = True
    with pytest.raises(OSError, match="Input/output error"):
        steps(offloaded.model, [[40, 41, 42, 43]])
    disk.is_broken = False
    assert_same(steps(offloaded.model, PROMPT), resident(folder, PROMPT))
    assert calls
