"""An offloaded model with lossy experts computes what a resident model of the decoded weights does, bit for bit."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from workbench.core.spec import Spec
from workbench.model.transformer import Transformer
from workbench.model.weights import load
from workbench.offload.config import OffloadConfig
from workbench.offload.formats import FORMATS
from workbench.offload.model import offload_model, open_offloaded
from workbench.offload.precision.skipping import without_light

# Of the expert width of the tiny model and of one that nothing is a multiple of.
FORMATS_TRIED = [
    Spec("int8"),
    Spec("int4"),
    Spec("int4", {"levels": 2, "group": 16}),
    Spec("residual", {"levels": 3, "rank": 2}),
]
DENSE, EXPERTS = 24 * 1024, 16
SENTENCE = [(7 * place * place + 3 * place) % 67 for place in range(120)]


def decoded(model: Transformer, spec: Spec, levels: list[int] | None = None) -> Transformer:
    """The model with every expert as the first levels of a format say it is."""
    form, place = spec.build(FORMATS), 0
    for layer in model.moe_layers():
        for expert in range(layer.experts.num_experts):
            tensors = [tensor.data[expert] for tensor in layer.experts.tensors()]
            pages = form.encode(tensors).pages
            form.decode(pages[: form.levels if levels is None else levels[place]], tensors)
            place += 1
    return model


@pytest.fixture
def check(checkpoint, opened, steps, assert_same, check_books):
    """One model in one format: logits, ledger, and how much is held."""

    def run(spec, *, prompts=None, dtype=torch.float32, mean_levels=None, model=None, **config) -> None:
        folder = checkpoint(dtype=dtype, **(model or {}))
        offloaded = opened(folder, format=spec, mean_levels=mean_levels, **config)
        got = steps(offloaded.model, prompts, after=lambda done, step: offloaded.events_of(done, step))
        levels = offloaded.engine.precision.pages_of
        assert_same(got, steps(decoded(load(folder), spec, levels), prompts))
        # and it is another model than the exact one.
        assert not torch.equal(got[0], steps(load(folder), prompts)[0])
        assert offloaded.engine.ledger.misses > 0
        check_books(offloaded.engine)

    return run


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("budget", ["50%", "101%"])
@pytest.mark.parametrize("spec", FORMATS_TRIED, ids=str)
def test_every_format_at_every_budget_and_batch(check, prompts, spec, budget, count):
    check(spec, budget=budget, prompts=prompts[:count])


@pytest.mark.parametrize("spec", FORMATS_TRIED, ids=str)
def test_experts_in_half_precision_of_odd_sizes(check, spec):
    check(spec, budget="60%", dtype=torch.bfloat16, model={"expert_width": 20, "num_experts": 7})


@pytest.mark.parametrize("prefetch", ["markov", "next_layer"])
@pytest.mark.parametrize("spec", FORMATS_TRIED, ids=str)
def test_guesses_change_nothing(check, prompts, spec, prefetch):
    check(spec, budget="45%", prefetch=Spec(prefetch), policy=Spec("lfu"), prompts=prompts)


@pytest.mark.parametrize("mean_levels", [1, 1.5, 2.25, 3])
def test_levels_by_importance(check, prompts, mean_levels):
    check(Spec("residual", {"levels": 3}), budget="45%", mean_levels=mean_levels, prompts=prompts)


def test_a_set_of_more_pages_than_slots_keeps_the_pages_of_an_expert_together(checkpoint, opened, steps, assert_same):
    spec, folder = Spec("residual", {"levels": 4}), checkpoint()
    offloaded = opened(folder, format=spec, budget="100%")
    offloaded.engine.set_capacity(22)
    prompts = [[5, 6, 7, 8, 9, 11, 2]]
    assert_same(steps(offloaded.model, prompts), steps(decoded(load(folder), spec), prompts))
    # four pages for each of the experts that seven tokens ask for did not fit beside keys and values.
    assert 8 <= offloaded.engine.capacity < 20


def test_a_budget_counts_pages_and_the_room_to_put_them_together(checkpoint, opened):
    exact, coarse = (opened(checkpoint(), budget="50%", format=Spec(name)).engine for name in ("exact", "int4"))
    page = DENSE // 4 * 4.5 / 8
    assert coarse.store.shape.num_bytes == page
    buffers = coarse._overhead - 2 * DENSE
    assert (exact.budget_bytes, exact.capacity) == (coarse.budget_bytes, 8) == (8 * DENSE, 8)
    assert coarse.capacity == min(16, (6 * DENSE - buffers) // page) == 16
    assert coarse.resident_bytes == coarse._overhead
    least = int(2 * page + coarse._overhead)
    with pytest.raises(ValueError, match=rf"one token asks for 2 experts of 3.4 KiB .* at least .* \({least} B\)"):
        opened(checkpoint(), budget=least - 1, format=Spec("int4"))
    assert opened(checkpoint(), budget=least, format=Spec("int4")).engine.capacity == 2
    with pytest.raises(ValueError, match="one token asks for 6 pages of experts of"):
        opened(checkpoint(), budget=100, format=Spec("residual", {"levels": 3}))


def test_a_miss_reads_the_pages_that_an_expert_is_read_from_and_no_more(checkpoint, opened, steps):
    offloaded = opened(checkpoint(), format=Spec("int4", {"levels": 2}), mean_levels=1.5, budget="100%")
    engine, precision, events = offloaded.engine, offloaded.engine.precision, []
    steps(offloaded.model, [[5, 6, 7]], after=lambda done, step: events.extend(engine.drain(step)))
    assert sorted(set(precision.pages_of)) == [1, 2] and sum(precision.pages_of) == 24
    read = [event.key for event in events if event.kind == "miss"]
    # everything fits, so every page is read once: as many for an expert as it has.
    expected = {key: precision.pages_of[key.layer * 8 + key.expert] for key in set(read)}
    assert {key: read.count(key) for key in set(read)} == expected
    assert engine.ledger.demand_bytes >= len(read) * engine.store.shape.num_bytes
    where = engine.residency()
    here = set(zip(*(where == 1).nonzero(), strict=True))
    assert where.shape == (2, 8) and {(key.layer, key.expert) for key in read} == here


def test_every_format_has_a_folder_of_its_own_and_arguments_are_converted_anew(copied, opened):
    folder, told = copied(), []

    def opens(spec: Spec) -> int:
        told.clear()
        config = OffloadConfig(format=spec, budget="100%")
        open_offloaded(folder, config, on_expert=lambda done, total: told.append((done, total))).close()
        return len(told)

    (folder / "experts" / "experts.json").unlink(missing_ok=True)
    for name in ("exact", "int4", "int8"):
        opens(Spec(name))
        assert opens(Spec(name)) == 0
    assert {"experts", "experts-int4", "experts-int8"} <= {path.name for path in folder.iterdir()}
    assert opens(Spec("int4", {"group": 16})) == EXPERTS and told[-1] == (16, 16)
    assert opens(Spec("int4")) == EXPERTS and opens(Spec("exact")) == 0


def test_a_store_in_another_format_at_a_named_place_is_refused(checkpoint, opened, tmp_path):
    opened(checkpoint(), format=Spec("int4"), store=tmp_path / "mine")
    for other in (Spec("exact"), Spec("int8"), Spec("int4", {"levels": 2})):
        with pytest.raises(ValueError, match=r"mine holds the experts of .* as int4, expected those of .*; remove the"):
            opened(checkpoint(), format=other, store=tmp_path / "mine")
    manifest = json.loads((tmp_path / "mine" / "experts.json").read_text())
    assert manifest["encoding"]["format"] == {"name": "int4", "args": {}} and len(manifest["checksums"]) == EXPERTS


def test_a_flipped_bit_of_a_page_names_its_expert(copied, opened, steps):
    folder = copied()
    store = opened(folder, format=Spec("int4", {"levels": 2}), budget="100%").engine.store
    data = store.folder / "experts.bin"
    damaged = bytearray(data.read_bytes())
    for page in range(store.num_pages):
        damaged[page * store.shape.stride + 5] ^= 1 if page % 2 else 0
    data.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"expert \d of layer 0 in .*experts.bin is damaged"):
        steps(opened(folder, format=Spec("int4", {"levels": 2}), budget="100%").model)


def test_wrong_names_and_levels_are_refused_before_anything_is_converted(copied):
    folder = copied()
    for config, error in (
        ({"format": Spec("int5")}, LookupError),
        ({"format": Spec("int8", {"bits": 3})}, ValueError),
        ({"format": Spec("int4"), "mean_levels": 2}, ValueError),
    ):
        before = sorted(folder.iterdir())
        with pytest.raises(error):
            open_offloaded(folder, OffloadConfig(**config))
        with pytest.raises(error):
            offload_model(load(folder), OffloadConfig(**config))
        assert sorted(folder.iterdir()) == before


def test_the_cost_is_measured_and_falls_with_every_level(checkpoint, opened):
    folder = checkpoint()
    exact = opened(folder, budget="50%")
    assert exact.measure_loss(exact.predict, SENTENCE).kl == 0
    found = []
    for levels in (1, 2, 4, 8, 16):
        offloaded = opened(folder, format=Spec("residual", {"levels": 16, "rank": 2}), mean_levels=levels, budget="50%")
        assert "lossy, not measured yet" in offloaded._repr_html_() and "bit for bit" not in offloaded._repr_html_()
        found.append(offloaded.measure_loss(exact.predict, SENTENCE).kl)
        assert f"lossy, KL {found[-1]:.4g} nats a token" in offloaded._repr_html_()
        assert offloaded.facts()["precision"] == str(offloaded.engine.precision)
    assert all(after < before for before, after in pairwise(found))
    assert found[-1] < found[0] / 100
    assert "lossless: outputs are those of the resident model, bit for bit" in exact._repr_html_()


@pytest.mark.parametrize(
    "router", [Spec("top_k", {"top_k": 2}), Spec("blockffn"), Spec("adamoe"), Spec("dense")], ids=str
)
def test_what_is_skipped_is_not_read_and_the_rest_is_computed(
    checkpoint, opened, steps, prompts, assert_same, check_books, monkeypatch, router
):
    folder = checkpoint(router=router)
    offloaded = opened(folder, skip=0.4, budget="60%")
    got, ledger = steps(offloaded.model, prompts), offloaded.engine.ledger
    whole, skipped = load(folder), 0
    for layer in whole.moe_layers():
        run = type(layer.experts).run

        def skipping(tensors, x, plan, context, body=layer.experts, run=run):
            nonlocal skipped
            plan, light = without_light(plan, 0.4)
            skipped += light
            return run(body, tensors, x, plan, context)

        monkeypatch.setattr(layer.experts, "run", skipping)
    assert_same(got, steps(whole, prompts))
    assert ledger.skipped == skipped > 0
    assert f"{skipped:,} assignments skipped" in ledger.to_text()
    check_books(offloaded.engine)
    every = opened(folder, budget="60%")
    steps(every.model, prompts)
    assert ledger.requests < every.engine.ledger.requests and every.engine.ledger.skipped == 0


def test_skipping_is_lossy_and_says_so(checkpoint, opened):
    offloaded = opened(checkpoint(), skip=0.3, budget="50%")
    assert "exact, skipping below 0.3: lossy, not measured yet" in offloaded._repr_html_()
    exact = opened(checkpoint(), budget="50%")
    assert offloaded.measure_loss(exact.predict, SENTENCE).kl > 0


@pytest.mark.parametrize("skip", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(skip):
    with pytest.raises(ValueError, match=r"skip is a share of a token's largest weight, at least 0 and below 1, got"):
        OffloadConfig(skip=skip)
    with pytest.raises(ValueError, match="usage says who gets more levels, so it needs mean_levels"):
        replace(OffloadConfig(), usage=(1.0,))


def test_a_model_in_memory_is_offloaded_in_a_format(checkpoint, steps, assert_same):
    model = load(checkpoint())
    with offload_model(model, OffloadConfig(budget="40%", format=Spec("int4"))) as offloaded:
        assert_same(steps(offloaded.model), steps(decoded(load(checkpoint()), Spec("int4"))))
        assert offloaded.facts()["precision"] == "int4: lossy, not measured yet"
