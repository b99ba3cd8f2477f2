"""The line of Python that a view shows is the one that the hub writes for the same command."""

import ast
import json

import pytest

from workbench.hub.commands import COMMANDS, python

pytestmark = pytest.mark.browser

HOSTILE = 'don\'t say "hi"\\ \n\t\r\x00\x7f\x85\u00a0\u2028\u202e👩\u200d👧\ue000 é <script>'

CASES = [
    ("pause", {}),
    ("undo", {}),
    ("take_over", {}),
    ("reset", {}),
    ("checkpoint", {}),
    ("step", {"count": 5}),
    ("set_rate", {"frames_per_second": 2.5}),
    ("annotate", {"text": "it's here"}),
    ("ban_expert", {"layer": 1, "expert": 3}),
    ("bias_expert", {"layer": 0, "expert": 2, "bias": -2.5}),
    ("measure_expert", {"layer": 0, "expert": 2}),
    ("generate", {"prompt": "a 'b'", "max_new_tokens": 64, "temperature": 0.8, "top_p": 0.95, "seed": 0}),
    ("generate", {"prompt": HOSTILE, "max_new_tokens": 8, "temperature": 0, "top_p": 0.5, "seed": 3}),
    ("swap_router", {"name": "switch", "args": {}, "carry": True, "rebuild_experts": False}),
    ("swap_router", {"name": "top_k", "args": {"top_k": 4, "jitter": 0.1, "flag": True, "none": None}, "carry": False}),
    ("set_router_args", {"args": {"top_k": 1}}),
    ("set_shadow", {"name": None, "args": {}}),
    ("set_shadow", {"name": "top_k", "args": {"top_k": 4}}),
    ("set_cache_size", {"slots": 12}),
    ("set_policy", {"name": "lru"}),
]


@pytest.mark.parametrize(("op", "args"), CASES)
def test_both_write_the_same_line(helpers, op, args):
    page = helpers("_python.js")
    line = page.evaluate("([op, text]) => pythonLine(op, JSON.parse(text))", [op, json.dumps(args)])
    assert line == python(op, args)


def test_every_line_is_python_and_a_hostile_text_stays_one_string(helpers):
    page = helpers("_python.js")
    line = page.evaluate("(prompt) => pythonLine('generate', { prompt, max_new_tokens: 8 })", HOSTILE)
    [call] = [node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Call)]
    assert ast.literal_eval(call.args[0]) == HOSTILE


def test_every_command_has_a_line(helpers):
    page = helpers("_python.js")
    given = {"set_shadow": {"name": "top_k", "args": {}}, "swap_router": {"name": "top_k", "args": {}}}
    for op in COMMANDS:
        line = page.evaluate("([op, args]) => pythonLine(op, args)", [op, given.get(op, {})])
        assert line == "" if op == "take_over" else line.startswith("session.")


COPY = """(text) => {
  window.copier = copyButton(() => text, new AbortController().signal);
  document.body.append(copier.element);
}"""


def test_the_line_is_copied(helpers):
    page = helpers("_python.js")
    clipboard = "{ writeText: async (text) => { window.copied = text; } }"
    page.evaluate(f"() => Object.defineProperty(navigator, 'clipboard', {{ value: {clipboard}, configurable: true }})")
    page.evaluate(COPY, "session.pause()")
    page.get_by_role("button", name="Copy as Python").click()
    assert page.evaluate("() => window.copied") == "session.pause()"
    assert page.get_by_role("status").text_content() == "Copied."


@pytest.mark.parametrize("clipboard", ["undefined", "{ writeText: () => Promise.reject(new Error('no')) }"])
def test_where_the_clipboard_is_closed_the_line_is_selected(helpers, clipboard):
    page = helpers("_python.js")
    page.evaluate(f"() => Object.defineProperty(navigator, 'clipboard', {{ value: {clipboard}, configurable: true }})")
    page.evaluate(COPY, "session.swap_router('switch')")
    page.get_by_role("button", name="Copy as Python").press("Enter")
    assert page.evaluate("() => getSelection().toString()") == "session.swap_router('switch')"
    assert page.get_by_role("status").text_content().startswith("Selected")
