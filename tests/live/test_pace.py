"""The pace: pause, resume, so many steps, stop."""

from workbench.live.pace import Pace


def test_a_pause_holds_until_it_is_resumed():
    changes = []
    pace = Pace(lambda: changes.append(1))
    assert not pace.is_paused
    pace.pause()
    assert pace.is_paused
    pace.begin()
    assert pace.is_paused, "a new training begins paused if a pause was asked for"
    pace.resume()
    assert not pace.is_paused and len(changes) == 2


def test_so_many_steps_and_then_a_pause():
    pace = Pace(lambda: None)
    pace.step(2)
    seen = []
    for _ in range(3):
        seen.append(pace.is_paused)
        pace.did_step()
    assert seen == [False, False, True]


def test_stop_ends_a_pause_and_the_next_training_begins_afresh():
    pace = Pace(lambda: None)
    pace.pause()
    pace.stop()
    assert pace.is_stopping and not pace.is_paused
    pace.begin()
    assert not pace.is_stopping
