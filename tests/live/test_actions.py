"""What each command does, and how it is taken back."""

import pytest
import torch

from workbench.hub.commands import COMMANDS, Command
from workbench.live.actions import ACTIONS
from workbench.payloads.container import header_of
from workbench.train import router_changes


def train(session, steps=1):
    return [report for report in session.train(steps, progress=False)]


def test_there_is_an_action_for_every_command_and_no_other():
    assert ACTIONS.keys() == COMMANDS.keys()


def test_a_swap_is_seen_named_and_taken_back(session):
    run = session.live.open()
    train(session, 2)
    gate = {name: tensor.clone() for name, tensor in session.model.state_dict().items() if ".router." in name}
    report = run.command("swap_router", name="switch", args={"capacity_factor": 2.0})
    assert report.after == "switch:capacity_factor=2.0"
    assert header_of(run.store.since(0, topics=["router_swap"])[0][48:])["view"] == "router_swap"
    assert run.state()["can_undo"] == "the swap to switch:capacity_factor=2.0" and run.state()["can_rewind"]
    words = run.command("undo")
    assert words.startswith("switch:capacity_factor=2.0 -> top_k")
    after = {name: tensor for name, tensor in session.model.state_dict().items() if ".router." in name}
    assert all(torch.equal(gate[name], after[name]) for name in gate)
    assert run.state()["can_undo"] is None
    with pytest.raises(ValueError, match="no router swap to undo"):
        run.command("undo")


def test_arguments_of_the_router_change_without_its_name(session):
    run = session.live
    assert run.command("set_router_args", args={"top_k": 4}).after == "top_k:top_k=4"
    assert session.model.config.router.args == {"top_k": 4}


def test_a_wrong_swap_is_refused_with_its_reason_and_nothing_happens(session):
    run = session.live.open()
    with pytest.raises(ValueError, match="top_k must be between 1 and"):
        run.command("swap_router", name="top_k", args={"top_k": 99})
    run.accept(Command(id="x", op="swap_router", args={"name": "no_such", "args": {}}, actor="ana"))
    session.live.desk.do(lambda: None)
    assert [record["status"] for record in run.outlet.journal.records] == ["refused", "refused"]
    assert "no_such" in run.outlet.journal.records[1]["reason"]
    assert session.model.config.router.name == "top_k"


def test_a_banned_expert_gets_no_token_a_pinned_one_all_and_undo_leaves_them_alone(session):
    run = session.live
    run.command("ban_expert", layer=0, expert=1)
    run.command("pin_expert", layer=2, expert=5)
    train(session)
    load = session.trace["load"]["load"].values[-1]
    assert load[0, 1] == 0 and load[2, 5] == 0.5
    run.command("undo")
    run.command("undo")
    assert session.model.steering is None
    train(session)
    assert session.trace["load"]["load"].values[-1][2, 5] < 0.5


def test_a_bias_of_zero_takes_the_steering_back(session):
    run = session.live
    run.command("bias_expert", layer=1, expert=1, bias=3.5)
    assert run.state()["steering"] == [{"layer": 1, "expert": 1, "kind": "bias", "bias": 3.5}]
    run.command("bias_expert", layer=1, expert=1, bias=0)
    assert run.state()["steering"] == []


def test_a_router_that_nobody_steers_says_so(session):
    session.swap_router("hash")
    with pytest.raises(ValueError, match="hash does not let anybody steer"):
        session.live.command("ban_expert", layer=0, expert=0)


def test_a_shadow_comes_and_goes_back(session):
    watch = session.live.command("set_shadow", name="switch", args={"capacity_factor": 2.0})
    assert watch is session.trainer.watch and session.live.state()["shadow"] == "switch:capacity_factor=2.0"
    session.live.command("undo")
    assert session.trainer.watch is None and session.live.state()["shadow"] is None


def test_what_was_done_is_in_the_trace(session):
    train(session)
    session.live.command("annotate", text="here it begins", actor="ana")
    session.live.command("ban_expert", layer=0, expert=0, actor="ben")
    train(session)
    control = session.trace["control"].to_dataset()
    assert control["op"].values.tolist() == ["annotate", "ban_expert"]
    assert control["actor"].values.tolist() == ["ana", "ben"]
    assert control["applied_step"].values.tolist() == [2, 2]


def test_rewind_goes_back_to_before_the_swap(session):
    run = session.live.open()
    train(session, 2)
    run.command("set_rate", frames_per_second=5)
    run.command("swap_router", name="switch", args={})
    train(session, 2)
    assert "back from step 4 to step 2" in run.command("rewind")
    assert session.trainer.step == 2 and session.model.config.router.name == "top_k"
    assert run.state()["can_undo"] == "the rate" and not run.state()["can_rewind"]
    run.command("undo")
    assert run.frames_per_second == 10


def test_reset_is_the_same_run_from_its_first_step_to_its_old_end(session):
    run = session.live.open()
    first = [report.loss for report in train(session, 3)]
    after_three = {name: tensor.clone() for name, tensor in session.model.state_dict().items()}
    run.command("ban_expert", layer=0, expert=1)
    run.command("swap_router", name="switch", args={})
    losses = []
    for report in session.train(3, progress=False):
        losses.append((report.step, report.loss))
        if len(losses) == 2:
            assert run.command("reset") == "back from step 5 to step 0, the start"
            assert run.state()["target_step"] == 6
            assert (run.steering.to_json(), run.undo_stack, session.model.config.router.name) == ([], [], "top_k")
    assert [step for step, _ in losses] == [4, 5, 1, 2, 3, 4, 5, 6]
    assert [loss for _, loss in losses[2:5]] == first
    assert session.trainer.step == 6
    run.command("reset")
    train(session, 3)
    assert all(torch.equal(tensor, after_three[name]) for name, tensor in session.model.state_dict().items())


def test_a_run_whose_start_is_not_kept_says_so(session, monkeypatch):
    monkeypatch.setattr(router_changes, "_MOST_START_BYTES", 1000)
    train(session, 1)
    with pytest.raises(ValueError, match="start another one with the same seed"):
        session.live.command("reset")


def test_generating_shows_the_text_while_it_is_written(session):
    run = session.live.open()
    written = run.command("generate", prompt="The ", max_new_tokens=6, temperature=0.0, top_p=1.0, seed=1)
    header = header_of(run.store.since(0, topics=["generation"])[0][48:])
    assert header["text"] == written.text and header["status"] == "finished" and header["prompt"] == "The "
    assert run.outlet.journal.records[-1]["result"]["text"] == written.text


def test_an_effect_is_published_with_those_before_it(session):
    run = session.live.open()
    run.command("measure_expert", layer=0, expert=1)
    run.command("measure_expert", layer=1, expert=1)
    assert [effect["layer"] for effect in run.effects] == [0, 1]
    assert header_of(run.store.since(0, topics=["expert_effect"])[0][48:])["view"] == "expert_effect"


def test_what_this_run_cannot_do_is_refused_in_words(session, tmp_path):
    run = session.live
    for op, args in (("checkpoint", {}), ("set_cache_size", {"slots": 4}), ("reset", {}), ("rewind", {})):
        with pytest.raises(ValueError, match=r"in memory|no router swap"):
            run.command(op, **args)


def test_arguments_that_a_command_does_not_take_are_an_error_in_words(session):
    with pytest.raises(TypeError, match="ban_expert takes layer, expert; got layr"):
        session.live.command("ban_expert", layr=0)
    with pytest.raises(LookupError, match="unknown command 'explode'"):
        session.live.command("explode")
