"""What the routing announces."""


def test_all_that_is_announced_is_equally_sure(drive):
    announced = [(4, 0.75), (7, 0.25)]
    assert drive("pre_gated").see(0, [1], ahead=announced) == [(4, 1.0), (7, 1.0)]


def test_nothing_announced_is_nothing_guessed(drive):
    assert drive("pre_gated").see(1, [1]) == []
