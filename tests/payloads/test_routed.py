"""Decisions by place: layers, passes and shadows."""

import numpy as np

from workbench.payloads.routed import choices_at, coded, expert_count, places_of, site_of_token


def test_a_shadow_is_a_place_of_its_own_and_comes_last(samples):
    routing = samples.routing_group((("eval", 1, "a b c"),), layers=2)
    routing["is_shadow"][0] = True
    routing["layer"][:] = [1, 1]
    assert [(key, name) for key, (name, _) in places_of(routing).items()] == [
        ((1, 0, False), "layer 1"),
        ((1, 0, True), "layer 1 (shadow router)"),
    ]


def test_passes_through_the_same_layer_are_told_apart(samples):
    routing = samples.routing_group((("eval", 1, "a b"),), layers=2)
    routing["layer"][:], routing["iteration"][:] = 0, [0, 1]
    assert [name for name, _ in places_of(routing).values()] == ["layer 0, pass 1", "layer 0, pass 2"]


def test_a_token_meets_the_site_that_routed_it(samples):
    routing = samples.routing_group((("eval", 1, "a b"),), layers=2)
    routing["layer"][:] = 0
    routing["is_routed"][:] = [[True, False], [False, False]]
    places = places_of(routing)
    site = site_of_token(routing, places, np.arange(2))
    assert site.tolist() == [[0], [-1]]
    assert choices_at(routing, np.arange(2), site)["expert"][1].tolist() == [[-1, -1]]


def test_words_are_numbered_and_the_empty_one_is_none():
    assert coded(np.array(["b", "", "a", "b"]))[0].tolist() == [1, -1, 0, 1]
    assert coded(np.array([], dtype=str))[1] == []


def test_the_widest_layer_counts(samples):
    routing = samples.routing_group((("eval", 1, "a b"),), layers=2, experts=16)
    routing["num_experts"][:] = [4, 20]
    assert expert_count(routing) == 20
