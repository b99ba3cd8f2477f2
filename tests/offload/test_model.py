"""A whole model with its experts on disk: where the store goes, which checkpoints, and one budget for all."""

import gc
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from workbench.core import Spec
from workbench.model.generate import Sampling, generate
from workbench.model.weights import load
from workbench.offload.config import OffloadConfig
from workbench.offload.model import offload_model, open_offloaded

BLOCK = 24 * 1024
# Keys and values of a column of one sequence: three blocks, two heads of eight, float32.
COLUMN = 2 * 3 * 2 * 8 * 4


def test_experts_are_converted_once_and_lie_beside_the_checkpoint(copied, opened, monkeypatch):
    folder, told = copied(), []
    first = open_offloaded(folder, OffloadConfig(), on_expert=lambda done, total: told.append(done))
    first.close()
    assert told == list(range(1, 17)) or told == []
    assert (folder / "experts" / "experts.bin").stat().st_size == 16 * BLOCK
    told.clear()
    open_offloaded(folder, OffloadConfig(), on_expert=lambda done, total: told.append(done)).close()
    assert told == []


@pytest.mark.parametrize("damage", ["other weights", "cut short", "manifest", "format"])
def test_a_store_beside_the_checkpoint_that_does_not_fit_is_made_anew(
    copied, opened, steps, resident, checkpoint, assert_same, damage
):
    folder = copied()
    opened(folder, budget="50%").close()
    manifest, data = folder / "experts" / "experts.json", folder / "experts" / "experts.bin"
    if damage == "cut short":
        data.write_bytes(data.read_bytes()[:-1])
    elif damage == "manifest":
        manifest.write_text('{"format":')
    else:
        changes = {"source": "other"} if damage == "other weights" else {"format": "moe-workbench.experts/0"}
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))
    assert_same(steps(opened(folder, budget="50%").model), resident(checkpoint()))


def test_a_store_that_was_named_is_never_overwritten(
    copied, opened, checkpoint, tmp_path, steps, resident, assert_same
):
    folder = copied()
    offloaded = opened(folder, store=tmp_path / "mine", budget="50%")
    assert_same(steps(offloaded.model), resident(checkpoint()))
    manifest = tmp_path / "mine" / "experts.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"source": "others"}))
    before = manifest.read_bytes()
    with pytest.raises(ValueError, match=r"mine holds the experts of others, expected those of .*; remove the folder"):
        opened(folder, store=tmp_path / "mine")
    assert manifest.read_bytes() == before


def test_an_error_while_opening_leaves_no_thread_and_no_file_open(checkpoint):
    folder, threads = checkpoint(), threading.active_count()
    open_offloaded(folder, OffloadConfig(budget="50%")).close()
    files = len(list(Path("/proc/self/fd").iterdir()))
    for config, error in (({"budget": 100}, ValueError), ({"policy": Spec("nobody")}, LookupError)):
        with pytest.raises(error):
            open_offloaded(folder, OffloadConfig(**config))
    assert threading.active_count() == threads
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == files
    with pytest.raises(FileNotFoundError):
        open_offloaded(folder / "nowhere", OffloadConfig())


FAMILIES = {
    "Mixtral": {"num_local_experts": 6, "intermediate_size": 48},
    "Qwen3Moe": {"num_experts": 6, "moe_intermediate_size": 24, "intermediate_size": 48, "head_dim": 16},
}


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_hugging_face_folders_are_offloaded_without_loss(
    tmp_path, opened, steps, resident, assert_same, check_books, family, stacked
):
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"vocab_size": 67, "num_experts_per_tok": 2, "max_position_embeddings": 64}
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = getattr(transformers, f"{family}Config")(**sizes, **ids, **FAMILIES[family], initializer_range=0.3)
    model = getattr(transformers, f"{family}ForCausalLM")(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path, **({"save_original_format": False} if stacked else {}))
    offloaded = opened(tmp_path, budget="80%", prefetch=Spec("next_layer"))
    assert_same(steps(offloaded.model), resident(tmp_path))
    check_books(offloaded.engine)


def test_experts_and_keys_together_never_exceed_the_budget(checkpoint, opened, steps):
    offloaded = opened(checkpoint(), budget="45%")
    engine, held, seen = offloaded.engine, [], []
    real = offloaded.engine.serve

    def watched(*arguments, meanwhile):
        for wave in real(*arguments, meanwhile=meanwhile):
            # the cache of this pass is made already for the blocks below, and will be for those above.
            seen.append(engine.resident_bytes + engine._other_bytes)
            yield wave

    engine.serve = watched

    def look(done, step):
        held.append((engine.resident_bytes + done.cache_bytes, engine._other_bytes, done.cache_bytes))
        offloaded.events_of(done, step)

    type(steps)(new_tokens=40)(offloaded.model, [[5, 6, 7], [8]], after=look)
    assert max(total for total, _, _ in held) <= engine.budget_bytes
    assert max(seen) <= engine.budget_bytes
    # what was reserved before a pass is what it took, also when the cache had doubled.
    assert all(reserved == taken for _, reserved, taken in held)
    assert [held[0][2], held[-1][2]] == [2 * 16 * COLUMN, 2 * 64 * COLUMN]
    assert engine.capacity < 7


def test_keys_that_leave_no_room_for_one_tokens_experts_are_refused_before_the_pass(checkpoint, opened, steps):
    offloaded = opened(checkpoint(), budget=2 * BLOCK + 20 * COLUMN)
    sampling = Sampling(max_new_tokens=40, temperature=0)
    done = 0
    with pytest.raises(ValueError, match=r"the budget must be at least 48.0 KiB .* beside what else it is for, got"):
        for _ in generate(offloaded.model, [[5, 6, 7]], sampling):
            done += 1
    # sixteen columns were there: three of the prompt, and then one for each token that was read.
    assert done == 1 + 13
    assert len(steps(offloaded.model, [[5, 6, 7]])) == 4


def test_a_router_that_remembers_counts_from_the_second_pass_on(checkpoint, opened, steps, resident, assert_same):
    folder = checkpoint(router=Spec("attention_aware"))
    offloaded = opened(folder, budget="50%")
    taken = []

    def look(done, step):
        taken.append((offloaded.engine._other_bytes, done.cache_bytes))

    assert_same(steps(offloaded.model, after=look), resident(folder))
    assert [reserved == taken_now for reserved, taken_now in taken] == [False, True, True, True]


def test_a_model_in_memory_is_offloaded_as_it_is_now(checkpoint, steps, assert_same):
    model = load(checkpoint())
    for parameter in model.parameters():
        parameter.data.mul_(1.25)
    with offload_model(model, OffloadConfig(budget="40%")) as offloaded:
        folder = offloaded.engine.store.folder
        assert_same(steps(offloaded.model), steps(model))
        assert folder.is_dir()
    assert not folder.exists()
    with pytest.raises(ValueError, match="the budget must be at least"):
        offload_model(model, OffloadConfig(budget=100))


def test_changes_from_another_thread_wait_for_the_end_of_a_token(checkpoint, opened, steps, resident, assert_same):
    folder = checkpoint()
    offloaded = opened(folder, budget="50%")
    with ThreadPoolExecutor(1) as other, offloaded.writing():
        asked = []

        def look(done, step):
            if step == 0:
                asked.append(other.submit(offloaded.change, lambda engine: engine.set_capacity(3)))
                while not offloaded._changes:
                    pass
                assert offloaded.engine.capacity == 7
            offloaded.events_of(done, step)

        assert_same(steps(offloaded.model, [[5, 6, 7, 8, 9, 11, 2], [9], [10, 11, 50]], after=look), resident(folder))
        asked[0].result(timeout=20)
    assert offloaded.facts()["slots"] in (2, 3)
    offloaded.change(lambda engine: engine.set_policy(Spec("lfu")))
    assert offloaded.facts()["policy"] == "lfu"
    with pytest.raises(LookupError, match="has no 'nobody'"):
        offloaded.change(lambda engine: engine.set_policy(Spec("nobody")))


def test_events_are_followed_by_where_everybody_is(checkpoint, opened, steps):
    offloaded = opened(checkpoint(), budget="50%")
    with offloaded.writing():
        told = []
        steps(offloaded.model, after=lambda done, step: told.append(offloaded.events_of(done, step)))
    assert all(len(events) > 1 and events[-1].tier.shape == (2, 8) for events in told)
    assert [events[-1].step for events in told] == [0, 1, 2, 3]
