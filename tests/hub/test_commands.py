"""The list of commands is closed, every one is checked, and each has its line of Python."""

import ast
import json

import pytest

from workbench.hub.commands import COMMANDS, HUB_COMMANDS, Command, Ledger, check_choice, check_command, python
from workbench.hub.schema import CommandError

EXAMPLES = {
    "annotate": {"text": "here"},
    "ban_expert": {"layer": 0, "expert": 3},
    "bias_expert": {"layer": 0, "expert": 3, "bias": -1.5},
    "generate": {"prompt": "Once"},
    "measure_expert": {"layer": 0, "expert": 3},
    "pin_expert": {"layer": 0, "expert": 3},
    "set_cache_size": {"slots": 4},
    "set_policy": {"name": "lru"},
    "set_prefetcher": {"name": "ahead"},
    "set_rate": {"frames_per_second": 10},
    "set_router_args": {"args": {"capacity_factor": 1.0}},
    "set_shadow": {"name": "switch"},
    "swap_router": {"name": "switch", "args": {"capacity_factor": 1.0}},
}


def message(op: str, **args) -> dict:
    return {"id": "a-1", "op": op, "args": args}


@pytest.mark.parametrize("op", COMMANDS)
def test_every_command_can_be_sent_and_written_in_python(op):
    command = check_command(message(op, **EXAMPLES.get(op, {})), actor="ana")
    assert set(command.args) == set(COMMANDS[op])
    line = python(op, command.args)
    if op != "take_over":
        [call] = ast.parse(line).body
        assert isinstance(call.value, ast.Call)
        assert line.startswith("session.")


def test_the_list_is_the_one_that_views_and_runtimes_know():
    assert set(COMMANDS) == {
        *("pause", "resume", "step", "stop", "set_rate", "swap_router", "set_router_args", "set_shadow", "pin_expert"),
        *("ban_expert", "bias_expert", "measure_expert", "generate", "checkpoint", "rewind", "undo", "annotate"),
        *("set_cache_size", "set_policy", "set_prefetcher", "reset", "take_over"),
    }
    assert set(HUB_COMMANDS) == {"start", "broadcast"}


@pytest.mark.parametrize(
    ("op", "args", "line"),
    [
        ("pause", {}, "session.live.command('pause')"),
        ("step", {}, "session.live.command('step')"),
        ("swap_router", {"name": "switch"}, "session.swap_router('switch')"),
        (
            "swap_router",
            {"name": "switch", "args": {"capacity_factor": 1.0}, "carry": False},
            "session.swap_router('switch', carry=False, capacity_factor=1.0)",
        ),
        ("set_router_args", {"args": {"top_k": 4}}, "session.live.command('set_router_args', args={'top_k': 4})"),
        ("set_shadow", {"name": None}, "session.set_shadow(None)"),
        ("set_shadow", {"name": "top_k", "args": {"top_k": 4}}, "session.set_shadow('top_k:top_k=4')"),
        ("ban_expert", {"layer": 1, "expert": 2}, "session.live.command('ban_expert', layer=1, expert=2)"),
        (
            "bias_expert",
            {"layer": 1, "expert": 2, "bias": 0.5},
            "session.live.command('bias_expert', layer=1, expert=2, bias=0.5)",
        ),
        ("generate", {"prompt": 'a"b', "seed": 3}, "session.ask('a\"b', max_new_tokens=64, seed=3)"),
        ("annotate", {"text": "<b>'"}, "session.live.command('annotate', text=\"<b>'\")"),
        ("set_rate", {"frames_per_second": 2}, "session.live.command('set_rate', frames_per_second=2)"),
        ("take_over", {}, ""),
    ],
)
def test_the_python_of_a_command(op, args, line):
    assert python(op, check_command(message(op, **args)).args) == line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"op": "exec"}, "unknown command 'exec'; there are annotate, "),
        ({"op": "start"}, "unknown command 'start'"),
        ({"op": None}, "unknown command None"),
        ({"op": ["pause"]}, "unknown command"),
        ({"id": ""}, "make a new uuid"),
        ({"id": "a" * 65}, "make a new uuid"),
        ({"id": "../x"}, "make a new uuid"),
        ({"id": 7}, "make a new uuid"),
        ({"args": []}, "args must be an object"),
        ({"args": None}, "args must be an object"),
        ({"args": {"path": "/etc"}}, "pause has no argument 'path'; it takes no arguments"),
        ({"code": "x"}, "got also 'code'"),
    ],
)
def test_what_is_no_command_is_422(changes, said):
    with pytest.raises(CommandError, match=said) as refused:
        check_command({**message("pause"), **changes})
    assert refused.value.code == 422


def test_an_import_path_is_no_name():
    with pytest.raises(CommandError, match="name must be a name of letters"):
        check_command(message("swap_router", name="os.system"))


def test_the_actor_is_who_the_server_knows():
    assert check_command({**message("pause"), "actor": "eve"}, actor="ana").actor == "ana"
    assert check_command({**message("pause"), "actor": "eve"}).actor == "eve"
    with pytest.raises(CommandError, match="actor must be a name"):
        check_command({**message("pause"), "actor": 3})


def test_a_name_that_the_run_does_not_offer_is_refused():
    state = {"choices": {"router": [{"name": "top_k"}, {"name": "switch"}]}}
    check_choice(Command("a", "swap_router", {"name": "switch"}), state)
    check_choice(Command("a", "set_shadow", {"name": None}), state)
    check_choice(Command("a", "set_policy", {"name": "lru"}), state)
    check_choice(Command("a", "swap_router", {"name": "anything"}), {})
    with pytest.raises(CommandError, match="no router is called 'nonesuch'; choose top_k, switch"):
        check_choice(Command("a", "swap_router", {"name": "nonesuch"}), state)


def test_a_command_sent_twice_gets_its_answer_again():
    ledger, command = Ledger(), Command("a", "pause", {}, "ana")
    assert ledger.answer_to(command) is None
    ledger.note(command, {"status": "accepted", "step": 3})
    assert ledger.answer_to(Command("a", "pause", {}, "ana")) == {"status": "accepted", "step": 3}


def test_an_id_cannot_be_used_again_for_something_else():
    ledger = Ledger()
    ledger.note(Command("a", "pause", {}, "ana"), {})
    for other in (Command("a", "stop", {}, "ana"), Command("a", "pause", {}, "eve")):
        with pytest.raises(CommandError, match="used for another command"):
            ledger.answer_to(other)


def test_old_answers_are_forgotten():
    ledger = Ledger(limit=2)
    commands = [Command(str(number), "pause", {}) for number in range(3)]
    for command in commands:
        ledger.note(command, {"step": 0})
    assert [ledger.answer_to(command) for command in commands] == [None, {"step": 0}, {"step": 0}]


def test_commands_travel_as_json():
    checked = check_command(json.loads(json.dumps(message("bias_expert", layer=0, expert=1, bias=0.25))))
    assert checked.args == {"layer": 0, "expert": 1, "bias": 0.25}
