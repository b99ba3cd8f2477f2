"""Text from a model that is built to write a given text: each byte is followed by the next."""

import pytest
import torch

from workbench.data.tokenizer import ByteTokenizer
from workbench.model.generate import Sampling
from workbench.model.text import TextStep, stream_text

END = 256


@pytest.fixture
def writer(make_model):
    """A model whose most probable token after each byte of the given chains is the next one; no byte comes twice."""

    def build(*chains: str | bytes):
        model = make_model(vocab_size=257, tie_embeddings=False)
        for name, parameter in model.named_parameters():
            if name.endswith(("attention.output.weight", "experts.down")):
                parameter.data.zero_()  # the blocks add nothing, so a logit sees its own token alone
        model.norm.weight.data.fill_(1.0)
        model.head.weight.data.zero_()
        embedding = torch.nn.functional.normalize(model.embedding.weight.data)
        for chain in chains:
            data = chain.encode() if isinstance(chain, str) else chain
            for before, after in zip([*data], [*data[1:], END], strict=True):
                model.head.weight.data[after] += embedding[before]
        return model

    return build


def written(model, prompts, *, tokens: int = 40, **options) -> list[TextStep]:
    return list(stream_text(model, ByteTokenizer(), prompts, Sampling(max_new_tokens=tokens, temperature=0), **options))


def texts(steps: list[TextStep]) -> list[str]:
    return ["".join(pieces) for pieces in zip(*(step.new for step in steps), strict=True)]


def test_text_comes_token_by_token_until_the_end_token(writer):
    steps = written(writer("abcdef"), ["xyab"])
    assert [step.new[0] for step in steps] == ["c", "d", "e", "f", ""]
    assert [step.ended[0] for step in steps] == [None, None, None, None, "end token"]
    assert all(step.generated is not None for step in steps)


def test_a_character_of_several_bytes_comes_whole(writer):
    steps = written(writer("aé☃z"), ["a"])
    assert [step.new[0] for step in steps] == ["", "é", "", "", "☃", "z", ""]


def test_half_a_character_at_the_end_is_shown_as_such(writer):
    model = writer("aé")
    steps = written(model, ["a"], tokens=1)
    assert texts(steps) == ["\ufffd"] and steps[-1].generated is None


def test_the_text_ends_before_a_stop_string(writer):
    steps = written(writer("abcdefgh"), ["a"], stop=("def", "gh"))
    assert texts(steps) == ["bc"]
    assert [step.new[0] for step in steps] == ["b", "c", "", "", ""]  # "d" and "e" might begin the stop string
    assert steps[-1].ended == ("stop string",)


def test_what_only_looked_like_a_stop_string_is_written_later(writer):
    steps = written(writer("abcdefgh"), ["a"], stop=("cdX",))
    assert [step.new[0] for step in steps][:5] == ["b", "", "", "cde", "f"]
    assert texts(steps) == ["bcdefgh"]
    assert texts(written(writer("abcd"), ["a"], tokens=2, stop=("cdX",))) == ["bc"]


def test_the_first_of_two_stop_strings_counts_and_one_may_hide_in_a_character(writer):
    assert texts(written(writer("abcdef"), ["a"], stop=("ef", "cd"))) == ["b"]
    assert texts(written(writer("aé☃z"), ["a"], stop=("☃",))) == ["é"]


def test_sequences_end_on_their_own(writer):
    steps = written(writer("abcd", "ABCDEFG"), ["a", "A", "c"], stop=("F",))
    assert texts(steps) == ["bcd", "BCDE", "d"]
    assert steps[-1].ended == ("end token", "stop string", "end token")
    assert len([step for step in steps if step.generated]) == 5


def test_an_empty_prompt_begins_a_document(writer):
    model = writer("hij")
    model.head.weight.data[ord("h")] = torch.nn.functional.normalize(model.embedding.weight.data)[END]
    assert texts(written(model, [""])) == ["hij"]


def test_an_empty_stop_string_is_refused(writer):
    with pytest.raises(ValueError, match="a stop string must not be empty; leave it out to stop at the end token only"):
        written(writer("ab"), ["a"], stop=("x", ""))


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(make_model):
    with pytest.raises(
        ValueError, match="tokenizer 'byte' has 257 tokens, the model's vocabulary 97; use the tokenizer"
    ):
        written(make_model(), ["a"])
