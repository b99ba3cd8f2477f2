"""Steering and its effect: commands as pressed, what is steered, and numbers beside their controls."""

import pytest

from workbench.payloads import expert_effect_payload
from workbench.payloads.expert_effect import control_interval

pytestmark = pytest.mark.browser

LIVE = {"id": "x", "status": "running", "router": "top_k", "num_layers": 4, "num_experts": 8, "steering": []}
RED = [179, 71, 0]


@pytest.fixture
def page(open_view):
    page = open_view("expert_effect", b"")
    page.evaluate("(run) => model.set('run', run)", LIVE)
    return page


def sent(page) -> tuple[str, dict]:
    command = page.evaluate("() => model.get('command')")
    return command["op"], command["args"]


def test_each_button_sends_its_command_for_the_chosen_expert(page):
    page.get_by_role("combobox", name="Layer").select_option("2")
    page.get_by_role("combobox", name="Expert").select_option("5")
    place = {"layer": 2, "expert": 5}
    for name, op in (("Pin", "pin_expert"), ("Ban", "ban_expert"), ("Measure its effect", "measure_expert")):
        page.get_by_role("button", name=name, exact=True).click()
        assert sent(page) == (op, place)
    slider = page.get_by_role("slider", name="Bias")
    slider.focus()
    for _ in range(5):
        slider.press("ArrowLeft")
    page.get_by_role("button", name="Apply bias").click()
    assert sent(page) == ("bias_expert", {**place, "bias": -2.5})
    assert "bias expert 5 of layer 2 by \u22122.50" in page.locator("p.moe-said").text_content()
    slider.press("Home")
    assert page.locator(".moe-value").text_content() == "\u221210.0"


def test_what_is_steered_is_listed_and_taken_back(page):
    assert page.get_by_text("Nothing is steered: the router decides alone.").is_visible()
    steering = [
        {"layer": 1, "expert": 3, "kind": "ban", "bias": None},
        {"layer": 0, "expert": 2, "kind": "bias", "bias": -2.5},
    ]
    page.evaluate("(run) => model.set('run', run)", {**LIVE, "steering": steering})
    items = page.locator(".moe-steered li")
    assert items.all_text_contents() == [
        "Take backexpert 3 of layer 1 banned: no token goes to it",
        "Take backexpert 2 of layer 0 bias \u22122.50 on its score",
    ]
    page.get_by_role("button", name="Take back: expert 3 of layer 1").press("Enter")
    assert sent(page) == ("bias_expert", {"layer": 1, "expert": 3, "bias": 0})
    page.evaluate("(run) => model.set('run', run)", LIVE)
    assert items.count() == 0


def test_an_expert_chosen_in_another_view_is_chosen_here(page):
    page.evaluate("() => model.set('selection', { layer: 3, expert: 6, step: 1 })")
    page.get_by_role("button", name="Ban").click()
    assert sent(page) == ("ban_expert", {"layer": 3, "expert": 6})


def test_a_router_that_cannot_be_steered_says_so(page):
    page.evaluate("(run) => model.set('run', run)", {**LIVE, "router": "expert_choice", "is_steerable": False})
    assert page.get_by_role("button", name="Ban").is_disabled()
    assert page.get_by_text("The router expert_choice does not let anybody steer its choice.").is_visible()


def test_without_a_run_nothing_can_be_steered_but_effects_are_shown(open_view, made):
    page = open_view("expert_effect", b"")
    assert page.get_by_text("Nothing has been measured.").is_visible()
    assert not page.get_by_role("button", name="Ban").is_visible()
    page = open_view("expert_effect", expert_effect_payload(made.effect_rows()))
    assert page.locator("canvas").is_visible()
    assert not page.get_by_role("button", name="Ban").is_visible()


def test_the_sentence_has_the_change_beside_mean_and_interval_of_the_controls(open_view, made):
    row = made.effect_rows(1)[0]
    page = open_view("expert_effect", expert_effect_payload([row]))
    mean, low, high = control_interval(row["controls"])
    lead = page.locator(".moe-lead").text_content()
    assert lead.startswith(
        "Without expert 3 of layer 0 (12\u00a0% of its layer's assignments) the loss on the probe text"
    )
    assert " rises by 0.420 nats per token, at step 120. Banning one of 8 random experts of similar load" in lead
    assert f"+{mean:#.3g} on average (95 % interval of that mean +{low:#.3g} to +{high:#.3g})" in lead
    assert lead.endswith("It matters more than all of them.")


@pytest.mark.parametrize(
    ("change", "words"),
    [(-0.1, "falls by 0.100"), (float("nan"), "is not a number"), (0.05, "It matters more than 4 of the 8.")],
)
def test_words_follow_the_number(open_view, made, change, words):
    row = {**made.effect_rows(1)[0], "change": change, "controls": [0.01, 0.02, 0.03, 0.04, 0.06, 0.07, 0.08, 0.09]}
    page = open_view("expert_effect", expert_effect_payload([row]))
    assert words in page.locator(".moe-lead").text_content()


def test_no_control_is_said_so(open_view, made):
    row = {**made.effect_rows(1)[0], "controls": [], "control_experts": []}
    page = open_view("expert_effect", expert_effect_payload([row]))
    assert "There was no other expert to compare it with." in page.locator(".moe-lead").text_content()


def test_a_larger_effect_is_further_to_the_right(open_view, made, send):
    rows = made.effect_rows(1)

    def dot(page) -> float:
        return page.evaluate("([r, g, b]) => probe.meanColumn([0, r, g, b])", RED)

    page = open_view("expert_effect", expert_effect_payload(rows))
    far = dot(page)
    send(page, expert_effect_payload([{**rows[0], "change": 0.05}]))
    near = dot(page)
    assert far > near + 100
    send(page, expert_effect_payload(rows))
    assert dot(page) == far


def test_keys_go_through_the_measurements_and_choose_the_expert(open_view, made):
    page = open_view("expert_effect", expert_effect_payload(made.effect_rows(3)))
    page.locator("canvas").focus()
    for key, who in (
        ("ArrowDown", "expert 1 of layer 2"),
        ("End", "expert 3 of layer 0"),
        ("ArrowUp", "expert 2 of layer 1"),
    ):
        page.keyboard.press(key)
        assert f"Without {who}" in page.locator(".moe-readout").text_content()
    page.keyboard.press("Enter")
    assert page.evaluate("() => model.get('selection')") == {"layer": 1, "expert": 2, "step": 121}
    page.get_by_role("button", name="Show the numbers").click()
    rows = page.evaluate("() => probe.cells()")
    assert [row[0] for row in rows] == ["layer 2, expert 1", "layer 1, expert 2", "layer 0, expert 3"]
    assert rows[2][8].count("layer 0") == 8


def test_refusals_are_said_and_marked(page):
    page.get_by_role("button", name="Ban").click()
    record = {
        "status": "refused",
        "reason": "all other experts of layer 0 are banned already; take one of those bans back",
    }
    page.evaluate("(record) => model.set('acks', { [model.get('command').id]: record })", record)
    said = page.locator("p.moe-said")
    assert said.text_content().startswith("Refused: ban expert 0 of layer 0. all other experts")
    assert "moe-refused" in said.get_attribute("class")


def test_many_measurements_show_the_newest_ten(open_view, made):
    page = open_view("expert_effect", expert_effect_payload(made.effect_rows(25)))
    assert page.locator("canvas").evaluate("(node) => node.clientHeight") < 560
    page.get_by_role("button", name="Show the numbers").click()
    assert len(page.evaluate("() => probe.cells()")) == 25
