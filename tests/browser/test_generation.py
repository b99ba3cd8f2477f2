"""The generate box: what is asked for, what is written, and the expert of every token."""

import re

import numpy as np
import pytest

from workbench.payloads import generation_payload
from workbench.payloads.generation import Written
from workbench.view.theme import okabe_ito

pytestmark = pytest.mark.browser

LIVE = {"id": "x", "status": "running", "step": 10}


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


@pytest.fixture
def page(open_view, payload_of):
    return open_view("generation", payload_of("generation"))


def go_live(page, **change) -> None:
    page.evaluate("(run) => model.set('run', run)", LIVE | change)


def test_the_button_sends_what_the_box_holds(open_view):
    page = open_view("generation", b"")
    assert page.get_by_text("A run that is live writes here").is_visible()
    go_live(page)
    page.get_by_role("textbox", name="Prompt").fill("def f(<script>")
    page.get_by_label("Length").fill("12")
    page.get_by_label("Temperature").fill("0")
    page.get_by_role("button", name="Generate").click()
    sent = page.evaluate("() => model.get('command')")
    assert sent["op"] == "generate"
    assert sent["args"] == {
        "prompt": "def f(<script>",
        "max_new_tokens": 12,
        "temperature": 0,
        "top_p": 0.95,
        "seed": 0,
    }
    assert page.locator(".moe-said").first.text_content() in ("Sent: generate.", "")
    assert page.get_by_text("Sent: generate.").is_visible()


def test_a_value_out_of_bounds_is_not_sent(open_view):
    page = open_view("generation", b"")
    go_live(page)
    page.get_by_label("Length").fill("1000")
    page.get_by_role("button", name="Generate").click()
    assert page.evaluate("() => model.get('command') ?? null") is None
    assert page.get_by_label("Length").evaluate("(input) => !input.checkValidity()")


def test_keys_alone_write(open_view):
    page = open_view("generation", b"")
    go_live(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("Hello")
    page.keyboard.press("Control+Enter")
    assert page.evaluate("() => model.get('command').args.prompt") == "Hello"


def test_every_token_has_the_colour_of_its_expert_in_the_chosen_layer(page, samples):
    routing = samples.whole_trace()["routing"].to_dataset()
    rows = routing.sizes["token"] - 16
    for layer in (0, 2):
        page.get_by_role("combobox", name="Layer").select_option(str(layer))
        chosen = routing["expert"].values[layer + 4, rows:]
        weight = routing["weight"].values[layer + 4, rows:]
        first = [int(e[w.argmax()]) for e, w in zip(chosen, weight, strict=True)]
        bands = page.evaluate("() => probe.bands()")
        assert [int(band["number"].rstrip("\u00d7")) for band in bands] == first
        assert [band["edge"] for band in bands] == [rgb(okabe_ito("light")[e % 8]) for e in first]


def test_prompt_and_written_text_are_told_apart(page):
    assert page.evaluate("() => probe.written()") == [False] * 3 + [True] * 13
    page.locator("summary").click()
    assert page.locator(".moe-plain").text_content() == "The ship sailed at dawn\u258c"
    assert page.locator(".moe-plain mark").text_content() == "sailed at dawn"


def test_it_streams_and_says_when_it_ends(open_view, made, send):
    def part(count: int, status: str) -> bytes:
        pieces = [f" w{i}" for i in range(count)]
        expert = np.arange(count)[:, None, None] % 4
        written = Written(
            pieces=pieces, is_prompt=np.arange(count) < 2, expert=expert, weight=np.ones((count, 1, 1)), num_experts=4
        )
        return generation_payload(
            written, prompt=" w0 w1", text="".join(pieces[2:]), status=status, settings=made.SETTINGS
        )

    page = open_view("generation", generation_payload(None, prompt=" w0 w1", status="waiting", settings=made.SETTINGS))
    go_live(page)
    assert page.locator(".moe-lead").text_content() == "Waiting for the first token."
    for count in (4, 60, 200):
        send(page, part(count, "writing"))
        assert page.locator(".moe-token").count() == count
        assert page.locator(".moe-lead").text_content().startswith(f"Writing: {count - 2} tokens of at most 64 so far.")
        assert page.get_by_role("button", name="Writing").is_disabled()
    strip = page.locator(".moe-strip")
    assert strip.evaluate("(node) => node.scrollTop + node.clientHeight >= node.scrollHeight - 2"), (
        "the end stays in sight"
    )
    page.locator("[data-token='1']").click()
    send(page, part(220, "writing"))
    assert page.evaluate("() => document.activeElement.dataset.token") == "1", "the reader keeps their token"
    assert strip.evaluate("(node) => node.scrollTop") == 0
    send(page, part(221, "finished"))
    assert (
        page.locator(".moe-lead")
        .text_content()
        .startswith("Finished: it has the length that was asked for. 219 written tokens are shown with the experts.")
    )
    assert page.get_by_role("button", name="Generate").is_enabled()
    assert "Finished: it has the length" in page.locator("[aria-live=polite]").text_content()


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        ("stopped", "", "Stopped: it was stopped."),
        ("finished", "", "Finished: the model ended the text. 13 written tokens are shown with the experts."),
        ("finished", "the end-of-text sign came", "the end-of-text sign came"),
        ("failed", "top_p must be above 0", "It could not be written: top_p must be above 0."),
    ],
)
def test_why_it_ended_is_said(open_view, samples, status, reason, words):
    page = open_view(
        "generation", generation_payload(samples.whole_trace(), prompt="a", text="b", status=status, reason=reason)
    )
    assert words in page.locator(".moe-lead").text_content()


def test_a_token_opens_its_layers_and_keys_walk(page):
    page.locator("[data-token='3']").click()
    assert page.locator(".moe-detail-table tbody tr").count() == 4
    assert "written by the model" in page.locator(".moe-detail").text_content()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("() => document.activeElement.dataset.token") == "4"
    assert page.evaluate("() => model.get('selection').layer") == 0


def test_hostile_text_stays_text(open_view):
    pieces = ["<script>window.hacked=1</script>", "\u202eevil", "<img src=x onerror='window.hacked=1'>"]
    written = Written(
        pieces=pieces,
        is_prompt=np.array([True, False, False]),
        expert=np.zeros((3, 1, 1), int),
        weight=np.ones((3, 1, 1)),
        num_experts=2,
    )
    page = open_view(
        "generation", generation_payload(written, prompt=pieces[0], text="".join(pieces[1:]), status="finished")
    )
    page.locator("summary").click()
    assert page.locator(".moe-token-text").all_text_contents()[1] == "\\u202eevil"
    assert (
        page.evaluate(
            "() => window.hacked === undefined && document.querySelectorAll('.moe-view script, .moe-view img').length"
        )
        == 0
    )


@pytest.mark.parametrize("status", ["finished", "stopped", "crashed", "lost"])
def test_a_run_that_is_over_writes_no_more(page, status):
    go_live(page)
    assert page.get_by_role("textbox", name="Prompt").is_visible()
    go_live(page, status=status)
    assert not page.get_by_role("textbox", name="Prompt").is_visible()
    assert page.locator(".moe-token").count() == 16, "what was written stays"


def test_the_python_of_the_box_is_copied(page):
    go_live(page)
    page.evaluate("() => Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })")
    page.get_by_role("textbox", name="Prompt").fill("it's")
    page.get_by_role("button", name="Copy as Python").click()
    assert re.fullmatch(r'session\.ask\("it\'s", max_new_tokens=64\)', page.evaluate("() => getSelection().toString()"))
