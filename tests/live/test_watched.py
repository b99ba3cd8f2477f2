"""A run has all that commands, hubs and texts may ask of it."""

import pytest

from workbench.live.watched import Watched


def test_a_run_is_watched_and_has_every_part_from_the_beginning(session):
    assert isinstance(session.live, Watched)
    assert Watched.__annotations__.keys() <= vars(session.live).keys()


def test_what_a_run_does_is_not_left_out():
    class Half(Watched):
        status = "running"

    with pytest.raises(TypeError, match=r"abstract.*accept.*publish_state.*watch"):
        Half()
