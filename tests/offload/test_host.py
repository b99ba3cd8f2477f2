"""Open checkpoints of transformers with their experts on disk: the logits of the resident model, bit for bit."""

import copy
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from workbench_kernels import register_transformers

from workbench.core.spec import Spec
from workbench.model.generate import Sampling
from workbench.model.host import expert_pieces, generate_host, read_expert
from workbench.model.tensor_files import TensorFiles
from workbench.offload.config import OffloadConfig
from workbench.offload.formats import FORMATS
from workbench.offload.host import HOST_EXPERTS, open_offloaded_host

_shared = importlib.util.spec_from_file_location(
    "host_checkpoints", Path(__file__).parent.parent / "model" / "host" / "conftest.py"
)
checkpoints = importlib.util.module_from_spec(_shared)
sys.modules["host_checkpoints"] = checkpoints
_shared.loader.exec_module(checkpoints)
plain, folder = checkpoints.plain, checkpoints.folder

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [20, 3]]
GREEDY = Sampling(max_new_tokens=6, temperature=0)
SLOW = [name for name in checkpoints.FAMILIES if name not in checkpoints.QUICK]
FAMILIES = [*checkpoints.QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def logits_of(steps):
    return [done.output.logits for done in steps]


def resident_plug(path, num_layers, form=None):
    """All experts in memory, read from the checkpoint's own files, computed by the same kernels.

    With a format every expert is what it says of it.
    """
    register_transformers(HOST_EXPERTS)
    compute = ALL_EXPERTS_FUNCTIONS[HOST_EXPERTS]
    with TensorFiles(path) as files:
        read = {key: read_expert(files, parts) for key, parts in expert_pieces(path).items()}
    for expert in read.values() if form is not None else ():
        tensors = [tensor.clone() for tensor in expert.values()]
        form.decode(form.encode(tensors).pages, tensors)
        expert.update(zip(expert, tensors, strict=True))
    stacks = []
    for layer in range(num_layers):
        own = [read[key] for key in sorted(read) if key.layer == layer]
        stacks.append({name: torch.stack([one[name] for one in own]) for name in own[0]})

    def plug(layer, hidden, expert, weight, module):
        whole = copy.copy(module)
        whole._parameters = dict(stacks[layer])
        return compute(whole, hidden, expert, weight)

    return plug


@pytest.mark.parametrize("host_compute", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_resident_experts_over_three_tiers(family, host_compute, folder, tmp_path):
    path = folder(family, torch.float32)
    config = OffloadConfig(budget="60%", host_budget="80%", host_compute=host_compute)
    with open_offloaded_host(path, config, store=tmp_path / "experts") as offloaded:
        got = logits_of(offloaded.generate(PROMPTS, GREEDY))
        engine = offloaded.engine
        assert engine.ledger.moved_bytes == engine.loop.link.moved_bytes and engine.ledger.written_bytes > 0
        assert (engine.host_side is not None) == host_compute == ("not bit-exact" in engine.badge)
        offloaded.host.plug_experts(resident_plug(path, len(offloaded.host.layers)))
        expected = logits_of(generate_host(offloaded.host, PROMPTS, GREEDY))
        assert [step for step, pair in enumerate(zip(got, expected, strict=True)) if not torch.equal(*pair)] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_resident_experts_under_every_budget(family, dtype, folder, tmp_path):
    path = folder(family, dtype)
    for budget in ("100%", "60%"):
        with open_offloaded_host(path, OffloadConfig(budget=budget), store=tmp_path / "experts") as offloaded:
            got = logits_of(offloaded.generate(PROMPTS, GREEDY))
            ledger, link = offloaded.engine.ledger, offloaded.engine.loop.link
            assert ledger.misses > 0 and ledger.moved_bytes == link.moved_bytes
            # the same object: where a weight lies in memory decides how the library adds up its product.
            offloaded.host.plug_experts(resident_plug(path, len(offloaded.host.layers)))
            expected = logits_of(generate_host(offloaded.host, PROMPTS, GREEDY))
        assert len(got) == GREEDY.max_new_tokens and all(map(torch.equal, got, expected))


@pytest.mark.parametrize("spec", [Spec("int4"), Spec("residual", {"levels": 2})], ids=str)
def test_lossy_experts_are_those_that_a_format_says(spec, folder, tmp_path):
    path, config = folder("olmoe", torch.bfloat16), OffloadConfig(budget="60%", format=spec)
    with open_offloaded_host(path, config, store=tmp_path / "experts") as offloaded:
        got = logits_of(offloaded.generate(PROMPTS, GREEDY))
        assert offloaded.engine.ledger.misses > 0 and f"{spec}: lossy, not measured yet" in offloaded._repr_html_()
        layers = len(offloaded.host.layers)
        offloaded.host.plug_experts(resident_plug(path, layers, spec.build(FORMATS)))
        expected = logits_of(generate_host(offloaded.host, PROMPTS, GREEDY))
        offloaded.host.plug_experts(resident_plug(path, layers))
        exact = logits_of(generate_host(offloaded.host, PROMPTS, GREEDY))
    assert len(got) == GREEDY.max_new_tokens and all(map(torch.equal, got, expected))
    assert not torch.equal(got[0], exact[0])


def test_a_calibration_text_is_refused(folder):
    with pytest.raises(ValueError, match="calibration runs models of our own families only; leave it out"):
        open_offloaded_host(folder("olmoe"), OffloadConfig(format=Spec("residual"), calibration=(1, 2, 3)))


def test_what_the_cache_did_and_where_the_experts_are_can_be_recorded(folder, tmp_path):
    config = OffloadConfig(budget="50%", policy=Spec("lfu"))
    with open_offloaded_host(folder("olmoe"), config, store=tmp_path / "experts") as offloaded:
        list(offloaded.generate([[5, 6, 7]], GREEDY))
        *events, residency = offloaded.events(step=3)
        assert {event.kind for event in events} <= {"hit", "miss", "evict"} and {event.step for event in events} == {3}
        # a prompt of three tokens and the five that follow: an event belongs to the first token that asks.
        assert {0, 3, 4, 5, 6, 7} <= {event.token for event in events} <= set(range(8))
        held = int((residency.tier == 1).sum())
        assert residency.tier.shape == (3, 12) and held == len(offloaded.engine.loop.cache.slot_of)
        assert offloaded.events()[:-1] == []


def test_a_closed_host_has_no_experts_any_more(folder, tmp_path):
    offloaded = open_offloaded_host(folder("olmoe"), OffloadConfig(), store=tmp_path / "experts")
    offloaded.close()
    with pytest.raises(LookupError, match="experts were left on disk"):
        list(generate_host(offloaded.host, PROMPTS, GREEDY))


def test_a_store_of_another_checkpoint_is_refused(folder, tmp_path):
    open_offloaded_host(folder("olmoe"), OffloadConfig(), store=tmp_path / "experts").close()
    with pytest.raises(ValueError, match="holds the experts of"):
        open_offloaded_host(folder("gpt_oss"), OffloadConfig(), store=tmp_path / "experts")


def test_a_budget_below_one_token_says_the_least(folder, tmp_path):
    with pytest.raises(ValueError, match="must be at least"):
        open_offloaded_host(folder("olmoe"), OffloadConfig(budget=100), store=tmp_path / "experts")


def test_no_prefetcher_can_ask_a_host_for_its_next_router(folder, tmp_path):
    config = OffloadConfig(budget="50%", prefetch=Spec("next_layer"))
    with open_offloaded_host(folder("olmoe"), config, store=tmp_path / "experts") as offloaded:
        with pytest.raises(LookupError, match="does not show its next router"):
            list(offloaded.generate(PROMPTS, GREEDY))
