"""CSV files of llama.cpp's moe-trace tools, in the three forms, and everything that can be wrong with them."""

import numpy as np
import pytest

from workbench.trace.imports import import_llama_cpp

EXPERT = np.random.default_rng(0).permuted(np.tile(np.arange(8), (5, 2, 1)), axis=-1)[..., :3]  # token, layer, rank
PROMPT = 3
LAYERS = (1, 4)  # of the model; the others are dense


def long_form():
    rows = ["phase,token,layer,rank,expert"]
    for tokens in ([0, 1, 2], [3], [4]):
        for place, layer in enumerate(LAYERS):
            for token in tokens:
                phase = "prefill" if token < PROMPT else "decode"
                rows += [f"{phase},{token},{layer},{rank},{EXPERT[token, place, rank]}" for rank in range(3)]
    return rows


def wide_form():
    rows = []
    for positions in ([-3, -2, -1], [0], [1]):
        for place, layer in enumerate(LAYERS):
            for position in positions:
                chosen = ",".join(map(str, EXPERT[position + PROMPT, place]))
                rows.append(f"{position},{layer},{chosen}")
    return rows


def short_form():
    rows = ["layer,expert"]
    for tokens in ([0, 1, 2], [3], [4]):
        for place, layer in enumerate(LAYERS):
            rows += [f"{layer},{expert}" for token in tokens for expert in EXPERT[token, place]]
    return rows


@pytest.fixture
def written(tmp_path):
    def write(rows):
        (tmp_path / "trace.csv").write_text("\n".join(rows) + "\n")
        return tmp_path / "trace.csv"

    return write


@pytest.mark.parametrize("form", [long_form, wide_form, short_form, lambda: short_form()[1:]])
def test_every_choice_comes_back(written, form):
    trace = import_llama_cpp(written(form()), num_experts=8, top_k=3)
    routing = trace["routing"]
    np.testing.assert_array_equal(routing["expert"].values, EXPERT.transpose(1, 0, 2))
    assert routing["position"].values.tolist() == list(range(5))
    assert routing["layer"].values.tolist() == [0, 1]
    assert routing["module"].values.tolist() == ["blk.1", "blk.4"]
    assert set(routing["num_experts"].values.tolist()) == {8}
    assert np.isnan(routing["weight"].values).all() and routing["kept"].values.all()
    assert set(routing["sequence"].values.tolist()) == {0}
    is_told = form in (long_form, wide_form)
    phases = ["prefill"] * 3 + ["decode"] * 2 if is_told else ["decode"] * 5
    assert routing["phase"].values.tolist() == phases
    # one pass for the prompt, then one for every token.
    assert routing["step"].values.tolist() == ([0, 0, 0, 1, 2] if is_told else [0, 1, 2, 3, 4])


def test_later_prompt_batches_follow_the_first_though_their_positions_are_lower(written):
    # the tool numbers the tokens of batch n from minus what was read before and with it.
    rows = ["-2,0,1,2", "-1,0,3,4", "-4,0,5,6", "-3,0,7,0", "0,0,1,3"]
    routing = import_llama_cpp(written(rows), num_experts=8)["routing"]
    assert routing["expert"].values[0].tolist() == [[1, 2], [3, 4], [5, 6], [7, 0], [1, 3]]


def changed(form, line, text):
    rows = form()
    rows[line - 1] = text
    return rows


@pytest.mark.parametrize(
    "rows, fault",
    [
        (["pos;layer;ids", "1;2;3"], r":1: expected a header 'phase,token,layer,rank,expert' or 'layer,expert', or"),
        ([], r"expected at least one row of routing, got none"),
        (["layer,expert"], r"expected at least one row of routing, got none"),
        (changed(long_form, 5, "prefill,1,1,0"), r":5: expected 5 columns \(phase.*\), got 4; truncated\?"),
        (changed(long_form, 5, "train,1,1,0,2"), r":5: expected phase prefill or decode, got 'train'"),
        (changed(long_form, 5, "prefill,1,1,0,x"), r":5: expected a whole number for expert, got 'x'; is the row"),
        (changed(long_form, 5, "prefill,1,1,1,2"), r":5: expected rank 0 of token 1 in layer 1, got 1; rows are"),
        (changed(long_form, 2, "prefill,0,1,0,8"), r":2: expected experts between 0 and num_experts - 1 = 7, got \["),
        (long_form()[:-1], r":29: expected top_k=3 experts of a token, got 2"),
        (
            long_form()[:-3],
            r"expected every token in each of the layers 1 to 4 that appear, got no row for token 4 in l",
        ),
        (long_form() + long_form()[1:4], r":32: expected token 0 once in layer 1, got it again; is it two traces"),
        ([*long_form(), "prefill,5,1,0,0"], r":32: expected top_k=3 experts of a token, got 1; correct"),
        (
            [*long_form(), *(f"decode,900000000000,1,{n},{n}" for n in range(3))],
            r"0 to 900000000000, got no row for token 5",
        ),
        (changed(wide_form, 4, "-3,4,1,2"), r":4: expected 5 columns as in the first row, got 4; is the last row"),
        (changed(wide_form, 4, "-3,4,1,1,2"), r":4: expected different experts for a token, got \[1, 1, 2\]"),
        (changed(wide_form, 4, "-3,-4,1,0,2"), r":4: expected a layer and a token that are not negative, got layer -4"),
        (short_form()[:-1], r":29: expected 1 tokens of 3 experts in layer 4, got 2 rows; is top_k right"),
        (changed(short_form, 5, "1"), r":5: expected 2 columns \(layer,expert\), got 1"),
    ],
)
def test_every_fault_names_file_line_expected_got_and_what_to_do(written, rows, fault):
    with pytest.raises(ValueError, match=r"trace\.csv.*") as caught:
        import_llama_cpp(written(rows), num_experts=8, top_k=3)
    assert caught.match(fault)
    assert "; " in str(caught.value) and "got" in str(caught.value)


def test_without_top_k_all_tokens_have_as_many_experts_as_the_first(written):
    with pytest.raises(ValueError, match=r":29: expected 3 experts as for the first token, got 2 for token 4; rows"):
        import_llama_cpp(written(long_form()[:-1]), num_experts=8)


def test_rows_without_tokens_need_top_k(written):
    with pytest.raises(ValueError, match="do not say where a token ends; give top_k"):
        import_llama_cpp(written(short_form()), num_experts=8)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        import_llama_cpp(tmp_path / "none.csv", num_experts=8)
