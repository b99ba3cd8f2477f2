"""When a layer may ask again."""

from workbench.offload.turns import Turns


def after(num_layers: int, layers: list[int]) -> list[int]:
    """Sets until each layer may last ask, after so many sets."""
    turns = Turns(num_layers)
    for layer in layers:
        turns.observe(layer)
    return [turns.sets_until(layer) for layer in range(num_layers)]


def test_layers_that_ask_once_come_in_turn():
    assert after(3, [0]) == [3, 1, 2]
    assert after(3, [0, 1, 2, 0, 1]) == [2, 3, 1]


def test_a_layer_of_a_chain_asks_several_times_in_its_turn():
    passed = [0, 0, 1, 1, 2, 2]
    # once more in this turn of layer 0, then two of layer 1, then two of layer 2.
    assert after(3, [*passed, 0]) == [1, 3, 5]
    assert after(3, [*passed, 0, 0]) == [6, 2, 4]


def test_layers_may_ask_different_numbers_of_times():
    assert after(2, [0, 1, 1, 1, 0]) == [4, 3]
    assert after(2, [0, 1, 1, 1, 0, 1]) == [3, 2]


def test_in_a_model_of_one_layer_every_set_is_a_turn():
    assert after(1, [0, 0, 0]) == [1]
