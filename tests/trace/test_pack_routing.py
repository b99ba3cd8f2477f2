"""Tokens and decisions side by side."""

import torch

from workbench.core.records import Batch
from workbench.trace.pack_routing import routing_columns
from workbench.trace.passes import Choice, Pass


def taken(token_ids, take, **fields):
    batch = Batch(token_ids=torch.tensor(token_ids), **fields.pop("batch", {}))
    rows = len(token_ids)
    known = {"step": 1, "phase": "train", "tokens": 99, "sequence": list(range(rows)), "position": [0] * rows}
    return Pass(take=take, batch=batch, **(known | fields))


def choice(expert, router="top_k", ahead=None):
    chosen = torch.tensor(expert)
    return Choice((0, 0, "m", router, False, 9), chosen, torch.full(chosen.shape, 0.5), chosen >= 0, None, ahead)


def test_nothing_taken_is_no_group():
    assert routing_columns([taken([[1, 2]], 0)], [], str) == {}


def test_parts_of_batches_keep_their_places():
    passes = [taken([[1, 2], [3, 4]], 3), taken([[5, 6]], 1, step=2)]
    columns = routing_columns(passes, [(0, choice([[1], [2], [3]])), (3, choice([[4]]))], str)
    assert columns["token_id"].tolist() == [1, 2, 3, 5]
    assert columns["sequence"].tolist() == [0, 0, 1, 0]
    assert columns["position"].tolist() == [0, 1, 0, 0]
    assert columns["step"].tolist() == [1, 1, 1, 2]
    assert columns["expert"].tolist() == [[[1], [2], [3], [4]]]


def test_widths_may_differ_from_pass_to_pass_and_empty_slots_weigh_nothing():
    passes = [taken([[1]], 1), taken([[2]], 1)]
    columns = routing_columns(passes, [(0, choice([[1]])), (1, choice([[2, -1, 3]]))], str)
    assert columns["expert"].tolist() == [[[1, -1, -1], [2, -1, 3]]]
    assert columns["weight"].tolist() == [[[0.5, 0, 0], [0.5, 0, 0.5]]]


def test_a_guess_may_be_wider_than_the_choice():
    columns = routing_columns([taken([[1]], 1)], [(0, choice([[1]], ahead=torch.tensor([[4, 5]])))], str)
    assert columns["ahead"].tolist() == [[[4, 5]]]
    assert columns["expert"].tolist() == [[[1, -1]]]


def test_an_unknown_domain_is_empty():
    batch = {"domain": torch.tensor([[1, -1, 0]]), "domains": ("prose", "code")}
    columns = routing_columns([taken([[1, 2, 3]], 3, batch=batch)], [(0, choice([[0], [0], [0]]))], str)
    assert columns["domain"].tolist() == ["code", "", "prose"]


def test_a_piece_is_asked_for_once_per_distinct_token():
    asked = []
    passes = [taken([[7, 7, 8]], 3)]
    columns = routing_columns(passes, [(0, choice([[0], [0], [0]]))], lambda token: asked.append(token) or f"<{token}>")
    assert columns["piece"].tolist() == ["<7>", "<7>", "<8>"]
    assert asked == [7, 8]
