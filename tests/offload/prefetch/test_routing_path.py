"""From token ids to the experts of the layers to come."""

from pathlib import Path

import numpy as np
import pytest

from workbench.offload.path_predictor import train_path_predictor
from workbench.trace.convert import from_arrays

LAYERS, EXPERTS, WORDS = 3, 4, 6


def way(word: int, before: int) -> list[int]:
    """The word decides layers 0 and 1, the one before it layer 2."""
    return [word % EXPERTS, (word + 1) % EXPERTS, before % EXPERTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A predictor that has learned these ways."""
    where = tmp_path_factory.mktemp("predictor")
    ids = np.random.default_rng(0).integers(0, WORDS, 600)
    paths = np.array([way(word, before) for word, before in zip(ids, [0, *ids[:-1]], strict=True)])
    scores = train_path_predictor(
        from_arrays(ids, paths[:, :, None], num_experts=EXPERTS), where, window=2, learning_rate=2e-2
    )
    assert scores.recall > 0.95
    return where


@pytest.fixture
def driven(drive, folder):
    return drive("routing_path", deep=LAYERS, experts=EXPERTS, folder=str(folder))


def best(guesses, layer: int) -> int:
    """The surest expert of a layer."""
    return next(page % EXPERTS for page, _ in guesses if page // EXPERTS == layer)


def test_a_token_says_its_way(driven):
    assert best(driven.see(0, [2], token_ids=(2,)), 1) == 3
    guesses = driven.see(1, [3], token_ids=(2,))
    assert [page // EXPERTS for page, _ in guesses] == [2]


def test_the_token_before_is_remembered_until_a_new_text(driven):
    driven.see(0, [1], token_ids=(1,))
    for layer in (1, 2):
        driven.see(layer, [0], token_ids=(1,))
    assert best(driven.see(0, [2], token_ids=(2,)), 2) == 1
    driven.begin()
    sure = {page: sure for page, sure in driven.see(0, [2], token_ids=(2,))}
    assert max(sure.get(2 * EXPERTS + expert, 0) for expert in range(EXPERTS)) < 0.3


def test_a_prompt_is_read_as_one_text(driven):
    guesses = driven.see(0, [1, 2, 3], token_ids=(1, 2, 3))
    second = {page % EXPERTS: sure for page, sure in guesses if page // EXPERTS == 1}
    third = {page % EXPERTS: sure for page, sure in guesses if page // EXPERTS == 2}
    assert {expert for expert, sure in second.items() if sure > 0.5} == {2, 3, 0}
    assert {expert for expert, sure in third.items() if sure > 0.25} >= {1, 2}


def test_tokens_of_several_texts_do_not_lead_each_other(driven):
    driven.see(0, [1, 2], token_ids=(1, 2))
    driven.see(1, [2, 3], token_ids=(1, 2))
    together = dict(driven.see(0, [3, 1], token_ids=(3, 1)))
    turned = dict(driven.see(0, [1, 3], token_ids=(1, 3)))
    assert together == pytest.approx(turned)


def test_nearer_layers_come_first_among_the_sure(driven):
    driven.see(0, [1], token_ids=(1,))
    guesses = driven.see(0, [2], token_ids=(2,))
    assert [page // EXPERTS for page, _ in guesses[:2]] == [1, 2]
    assert guesses[0][1] == pytest.approx(2 / 3, abs=0.05)
    assert guesses[1][1] == pytest.approx(1 / 3, abs=0.05)


def test_before_a_pass_all_its_layers_are_guessed(driven):
    guesses = driven.prefetcher.begin_pass((2,))
    assert [page // EXPERTS for page, _ in guesses[:2]] == [0, 1]
    assert [best(guesses, layer) for layer in (0, 1)] == [2, 3]
    # nearer layers first: the factor of the first is 1, of the second 2 / 3.
    assert [sure for _, sure in guesses[:2]] == pytest.approx([1, 2 / 3], abs=0.05)
    # the layers need not bring the tokens again, and are not read as later ones of the text.
    assert best(driven.see(0, [2], token_ids=(2,)), 1) == 3
    for layer, expert in ((1, 3), (2, 0)):
        driven.see(layer, [expert], token_ids=(2,))
    assert best(driven.prefetcher.begin_pass((1,)), 2) == 2
    assert best(driven.see(0, [1], token_ids=(1,)), 2) == 2


def test_a_layer_that_asks_again_in_its_turn_brings_no_new_tokens(driven):
    driven.prefetcher.begin_pass((1,))
    driven.prefetcher.begin_pass((2,))
    for _ in range(3):
        guesses = driven.see(0, [2], token_ids=(2,))
    assert best(guesses, 2) == 1


def test_it_reaches_as_far_as_it_is_told(drive, folder):
    driven = drive("routing_path", deep=LAYERS, experts=EXPERTS, folder=str(folder), reach=1)
    assert {page // EXPERTS for page, _ in driven.see(0, [2], token_ids=(2,))} == {1}


def test_without_token_ids_nothing_is_guessed(driven):
    assert driven.see(0, [2]) == []
    assert driven.see(0, [2], token_ids=()) == []


def test_a_predictor_of_another_model_is_refused(drive, folder):
    with pytest.raises(ValueError, match="is for 3 layers of 4 experts, and this model has 2 of 4"):
        drive("routing_path", folder=str(folder))
    with pytest.raises(FileNotFoundError, match="make one with train_path_predictor"):
        drive("routing_path", folder=str(folder / "none"))
