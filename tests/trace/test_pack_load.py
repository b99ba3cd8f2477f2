"""Rows of the load group."""

import numpy as np
import torch

from workbench.core.records import Tally
from workbench.trace.pack_load import load_columns, opens_row
from workbench.trace.passes import Pass, Sums


def sums(demand, kept=None, prob=None, layer=0, tokens=1):
    return Sums(
        layer=layer,
        demand=torch.tensor(demand),
        kept=torch.tensor(demand if kept is None else kept),
        prob=None if prob is None else torch.tensor(prob),
        entropy=None if prob is None else torch.tensor([0.5]),
        tokens=tokens,
    )


def test_one_training_step_is_one_row_and_one_decode_step_is_one_row():
    assert not opens_row((3, "train"), 3, "train")
    assert opens_row((3, "train"), 4, "train")
    assert opens_row((3, "train"), 3, "eval")
    assert opens_row((3, "decode"), 3, "decode")
    assert opens_row(None, 0, "train")


def test_micro_batches_are_weighted_by_their_tokens():
    passes = [Pass(step=1, phase="train", tokens=n) for n in (1, 3)]
    found = [(sums([1, 0], prob=[1.0, 0.0], tokens=1),), (sums([0, 3], prob=[0.0, 3.0], tokens=3),)]
    columns = load_columns(passes, found)
    assert columns["load"].tolist() == [[[0.25, 0.75]]]
    assert columns["prob_mean"].tolist() == [[[0.25, 0.75]]]
    assert columns["entropy"].tolist() == [[0.25]]
    assert columns["tokens"].tolist() == [4]


def test_an_extra_expert_without_a_score_has_load_and_no_probability():
    columns = load_columns([Pass(step=1, phase="train", tokens=2)], [(sums([1, 0, 1], prob=[1.0, 1.0], tokens=2),)])
    assert columns["load"].tolist() == [[[0.5, 0.0, 0.5]]]
    np.testing.assert_array_equal(columns["prob_mean"], [[[0.5, 0.5, np.nan]]])


def test_a_router_without_scores_has_no_entropy():
    columns = load_columns([Pass(step=1, phase="train", tokens=2)], [(sums([1, 1]),)])
    assert columns["load"].tolist() == [[[0.5, 0.5]]]
    assert np.isnan(columns["entropy"]).all()
    assert np.isnan(columns["prob_mean"]).all()


def test_nobody_asked_means_unknown_and_not_zero():
    columns = load_columns([Pass(step=1, phase="train")], [(sums([0, 0], tokens=0),)])
    for name in ("load", "cv", "dead_fraction", "dropped_fraction"):
        assert np.isnan(columns[name]).all(), name


def test_tallies_replace_only_the_layers_they_speak_of():
    tally = Tally(
        layer=1, iteration=0, demand=torch.tensor([4, 0]), kept=torch.tensor([1, 0]), losses={"z": 2.0}, tokens=4
    )
    passes = [Pass(step=1, phase="train", tokens=2), Pass(step=1, phase="train", tallies=(tally,))]
    columns = load_columns(passes, [(sums([1, 1]), sums([1, 1], layer=1)), ()])
    assert columns["load"].tolist() == [[[0.5, 0.5], [1.0, 0.0]]]
    assert columns["dropped_fraction"].tolist() == [[0.0, 0.75]]
    np.testing.assert_array_equal(columns["aux_loss"], [[[np.nan], [2.0]]])
