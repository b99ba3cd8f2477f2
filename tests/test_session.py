"""The notebook facade: the few lines that a notebook starts with, and what they promise."""

import inspect
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.core import Spec
from workbench.model import ModelConfig
from workbench.train import TrainConfig
from workbench.train.checkpoint import checkpoints

CORPUS = "token_remap:num_domains=2,documents=1"
SHAPE = ModelConfig(
    vocab_size=257,
    width=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    num_experts=4,
    expert_width=32,
    router=Spec("top_k"),
)
CONFIG = TrainConfig(batch_size=4, sequence_length=16, dtype="float32", checkpoint_every=0, evaluation_windows=2)


@pytest.fixture(scope="module", autouse=True)
def cache_home(tmp_path_factory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def make():
    made: list[wb.Session] = []

    def begin(**changes) -> wb.Session:
        options = {"model": SHAPE, "corpus": CORPUS, "router": "top_k", "config": CONFIG}
        made.append(wb.Session(**{**options, **changes}))
        return made[-1]

    yield begin
    for session in made:
        if session.trainer.folder is not None:
            session.trainer.release()


def run(session: wb.Session, steps: int) -> list[float]:
    return [report.loss for report in session.train(steps, progress=False)]


def test_the_lines_that_a_notebook_starts_with(tmp_path):
    session = wb.Session(
        model="tiny", corpus=CORPUS, router="top_k", seed=0, batch_size=2, sequence_length=16, folder=tmp_path / "a"
    )
    for report in session.train(steps=2):
        assert report.step
        assert report.loss > 0
        assert report.tokens_per_second > 0
    kept = session.swap_router("expert_choice")
    assert "all 8 experts per layer kept" in str(kept)
    trace = session.record("def add(a, b):\n    return a + b")
    assert trace["routing"].sizes["token"] == 31
    answer = session.ask("Once upon a time", max_new_tokens=5)
    assert answer.num_tokens == 5
    session.close()
    model = wb.load(tmp_path / "a")
    assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 257)
    assert str(model.config.router) == "expert_choice"


def test_the_surface_stays_this_small():
    public = {name for name in dir(wb.Session) if not name.startswith("_")}
    assert public == {
        *(
            "train",
            "swap_router",
            "undo",
            "rewind",
            "set_shadow",
            "record",
            "ask",
            "offload",
            "evaluate",
            "report",
            "export",
            "close",
            "resume",
        ),
        *("model", "tokenizer", "corpus", "trace"),
    }
    parameters = inspect.signature(wb.Session).parameters
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())
    assert wb.__all__ == ["Comparison", "Session", "Spec", "TrainConfig", "compare", "gallery", "load", "replay"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"router": "swich"}, "did you mean 'switch'"),
        ({"model": "tinny"}, "did you mean 'tiny'"),
        ({"corpus": "mixxed"}, "did you mean 'mixed'"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"tokenizer": "mixed_bpe_4096"}, "must be read with tokenizer 'byte'"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(changes, message, make, tmp_path):
    with pytest.raises((LookupError, ValueError), match=message):
        make(**changes, folder=tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_the_short_options_are_fields_of_the_configuration(make):
    session = make(seed=5, batch_size=2, sequence_length=8)
    config = session.trainer.config
    assert (config.seed, config.batch_size, config.sequence_length) == (5, 2, 8)
    assert config.evaluation_windows == CONFIG.evaluation_windows


def test_training_may_be_left_and_taken_up_in_the_same_cell(make):
    session = make()
    for report in session.train(10, progress=False):
        if report.step == 2:
            break
    assert [r.step for r in session.train(2, progress=False)] == [3, 4]
    assert run(make(), 4) == session.trace["run"]["loss"].values.tolist()
    assert session.trainer.state.trained_seconds > 0
    with pytest.raises(ValueError, match="steps must be at least 0"):
        session.train(-1)


def test_recording_a_text_leaves_the_run_alone(make):
    session = make()
    run(session, 1)
    before = session.trace["routing"].sizes["token"]
    trace = session.record("hello")
    assert "".join(trace["routing"]["piece"].values.tolist()) == "hello"
    assert set(trace["routing"]["step"].values.tolist()) == {1}
    assert session.trace["routing"].sizes["token"] == before
    assert run(session, 1) == run(make(), 2)[1:]
    with pytest.raises(ValueError, match="at least one token"):
        session.record("")


def test_a_swap_takes_arguments_in_either_way(make):
    session = make()
    session.swap_router("switch:jitter=0.0", balance=0.5)
    assert session.model.config.router == Spec("switch", {"jitter": 0.0, "balance": 0.5})
    with pytest.raises(LookupError, match="did you mean 'gshard'"):
        session.swap_router("gshad")
    with pytest.raises(ValueError, match="must be int, got 'two'"):
        session.swap_router("top_k", top_k="two")
    assert session.model.config.router.name == "switch"
    run(session, 1)
    assert session.trace["control"]["op"].values.tolist() == ["swap_router"]


def test_a_swap_is_taken_back_and_a_shadow_watches(make):
    session = make()
    assert session.set_shadow("top_k:balance=0.0").kind == "learning"
    run(session, 1)
    session.swap_router("switch")
    run(session, 1)
    assert session.undo().startswith("switch -> top_k: the old router is back")
    assert session.set_shadow(None) is None
    session.swap_router("hash")
    run(session, 1)
    assert session.rewind() == "back from step 3 to step 2, before the swap"
    assert session.model.config.router.name == "top_k"
    assert session.trace["routing"]["is_shadow"].values.any()


def test_the_most_probable_answer_is_always_the_same(make):
    session, pieces = make(), []
    first = session.ask("ab", max_new_tokens=8, temperature=0, on_text=pieces.append)
    assert session.ask("ab", max_new_tokens=8, temperature=0, seed=5).text == first.text == "".join(pieces)
    assert first.settings == "greedy"
    assert first.trace["routing"].sizes["token"] == 2 + 8 - 1


def test_a_drawn_answer_depends_on_its_seed(make):
    texts = [make().ask("ab", max_new_tokens=16, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_router_that_sees_later_tokens_answers_and_says_so(make):
    answer = make(router="expert_choice").ask("ab", max_new_tokens=4)
    assert answer.num_tokens == 4
    assert "expert_choice sees later tokens, so the prefix was routed anew each time" in answer.settings


def test_sampling_out_of_range_is_refused(make):
    with pytest.raises(ValueError, match="max_new_tokens must be at least 0, got -1"):
        make().ask("ab", max_new_tokens=-1)
    with pytest.raises(ValueError, match="a stop string must not be empty"):
        make().ask("ab", stop=[""])


def test_a_session_goes_on_from_disk_with_its_texts(make, tmp_path):
    with make(folder=tmp_path / "a") as session:
        losses = run(session, 2)
        session.ask("ab", max_new_tokens=3)
    again = wb.Session.resume(tmp_path / "a")
    assert [sample.prompt for sample in again.samples] == ["ab"]
    losses += run(again, 2)
    again.close()
    assert losses == run(make(), 4)


def test_leaving_the_block_saves_and_an_error_does_not(make, tmp_path):
    with make(folder=tmp_path / "a") as session:
        session.swap_router("hash")
    assert wb.load(tmp_path / "a").config.router.name == "hash"
    with pytest.raises(ZeroDivisionError), make(folder=tmp_path / "b") as session:
        session.swap_router("hash")
        _ = 1 / 0
    assert wb.load(tmp_path / "b").config.router.name == "top_k"
    wb.Session.resume(tmp_path / "b").close()


def test_a_swap_after_the_last_step_is_not_lost(make, tmp_path):
    session = make(folder=tmp_path / "a")
    run(session, 1)
    session.swap_router("hash")
    session.close()
    [_, newest] = checkpoints(tmp_path / "a" / "checkpoints")
    assert newest.name == "step_00000001"
    assert wb.load(newest).config.router.name == "hash"


def test_the_report_is_one_page_with_the_texts(make, tmp_path):
    session = make()
    run(session, 2)
    answer = session.ask("a rare prompt", max_new_tokens=3)
    path = session.report(tmp_path / "report.html", title="A title of mine")
    page = path.read_text()
    assert "A title of mine" in page
    assert "a rare prompt" in page
    assert answer.prompt == "a rare prompt"


def test_the_table_names_what_the_session_is(make, tmp_path):
    session = make(folder=tmp_path / "a", corpus="token_remap:num_domains=64,documents=1")
    shown = session._repr_html_()
    assert len(shown.encode()) < 5000
    assert "top_k" in shown
    assert "and 52 more" in shown
    assert str(tmp_path / "a") in shown
    assert "bfloat16" not in shown


def test_held_out_loss_is_given_per_domain(make):
    session = make()
    assert session.evaluate() == session.trainer.evaluate()
    assert set(session.evaluate()) == set(session.corpus.domains)


def test_an_exported_session_is_opened_trained_on_with_another_router_and_exported_back(make, tmp_path):
    first = make()
    run(first, 2)
    folder = first.export(tmp_path / "hf")
    ids = torch.arange(12).reshape(2, 6)
    assert torch.equal(wb.load(folder)(ids).logits, first.model(ids).logits)
    second = make(model=folder, router="switch", corpus=CORPUS)
    assert second.tokenizer.name == "byte"
    assert all(np.isfinite(run(second, 2)))
    assert second.model.config.router.name == "switch"
    with pytest.raises(ValueError, match="router 'switch' has no Hugging Face form"):
        second.export(tmp_path / "back")
    assert not (tmp_path / "back").exists()
    second.swap_router("top_k", renormalise=True)
    back = second.export(tmp_path / "back")
    assert torch.equal(wb.load(back)(ids).logits, second.model(ids).logits)
    assert wb.Session(model=back, corpus=CORPUS, config=CONFIG).tokenizer.vocab_size == 257


@pytest.mark.slow
def test_transformers_opens_an_export_with_the_same_logits_and_tokens(make, tmp_path):
    import transformers

    session = make()
    run(session, 2)
    folder = session.export(tmp_path / "hf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("a text", return_tensors="pt").input_ids
    assert ids[0].tolist() == session.tokenizer.encode("a text")
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, session.model(ids).logits, rtol=1e-4, atol=1e-4)
