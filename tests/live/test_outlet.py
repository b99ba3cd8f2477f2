"""What a run shows: nothing before it is opened, everything once, nothing after it is closed."""

from workbench.live.outlet import Outlet


def test_it_publishes_from_open_to_close(session):
    outlet = Outlet(session.trainer.recorder)
    for _ in session.trainer.run(1):
        pass
    outlet.catch_up()
    assert not outlet.is_open and outlet.store.seq == 0 and outlet.crowds == {}
    outlet.open()
    assert outlet.is_open and outlet.settle()
    before = outlet.store.seq
    for _ in session.trainer.run(1):
        pass
    outlet.catch_up()
    assert outlet.settle() and outlet.store.seq > before
    assert outlet.crowds.keys() == {"idle_experts", "overloaded_experts"}
    outlet.close()
    after = outlet.store.seq
    for _ in session.trainer.run(1):
        pass
    outlet.catch_up()
    outlet.close()
    assert outlet.store.seq == after


def test_a_view_that_two_watch_is_built_until_both_look_away(session):
    outlet = Outlet(session.trainer.recorder)
    outlet.open()
    outlet.watch("ana", ["token_strip"])
    outlet.watch("ben", ["token_strip", "expert_flow", "residency"])
    outlet.watch("ana", [])
    assert outlet.settle() and outlet._feed._watched == {"token_strip", "expert_flow"}
    outlet.watch("ben", [])
    assert outlet.settle() and outlet._feed._watched == frozenset()
    outlet.close()
