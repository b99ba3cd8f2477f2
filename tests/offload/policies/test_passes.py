"""Counting passes and tokens."""

from workbench.offload.policies._passes import PassClock, latest_turn_first


def test_a_layer_that_is_not_deeper_begins_a_pass(shape):
    clock = PassClock(shape(2, num_layers=4, top_k=2))
    begins = [clock.observe(layer, [1, 1]) for layer in (0, 1, 3, 1, 2, 2)]
    assert begins == [True, False, False, True, False, True]
    assert clock.passes == 3


def test_tokens_are_those_of_the_first_layer_of_each_pass(shape):
    clock = PassClock(shape(2, num_layers=2, top_k=2))
    for layer, counts in ((0, [7, 3]), (1, [5, 5]), (0, [1, 1]), (1, [2]), (0, [1])):
        clock.observe(layer, counts)
    # five tokens, one, and one whose second expert was dropped.
    assert clock.tokens == 7


def test_the_running_layer_has_its_turn_last():
    assert latest_turn_first(3) == [[0, 2, 1], [1, 0, 2], [2, 1, 0]]
