"""The table of runs: sorted, chosen and kept in step with what the host tells."""

import time

import pytest

pytestmark = pytest.mark.browser


def run(name: str, **facts) -> dict:
    known = {"id": name, "title": f"run {name}", "owner": "ana", "router": "top_k", "status": "running", "step": 10}
    known |= {
        "target_step": 100,
        "loss": 3.0,
        "tokens_per_second": 1000.0,
        "idle_experts": 0,
        "started_at": time.time() - 60,
    }
    return known | facts


RUNS = [
    run("a", loss=3.25, step=120, target_step=500, tokens_per_second=5123.4, idle_experts=2),
    run(
        "b",
        status="paused",
        loss=2.5,
        step=1200,
        target_step=None,
        started_at=0,
        idle_experts=[{"layer": 0, "expert": 1}],
    ),
    run("c", status="crashed", loss=None, tokens_per_second=None, error="the loss is no number", owner="ben"),
    run("d", title="", status="finished", loss=10.5, router="switch"),
]


@pytest.fixture
def page(open_view):
    page = open_view("run_table", b"")
    page.evaluate("(runs) => model.set('runs', runs)", RUNS)
    return page


def column(page, nth: int) -> list[str]:
    return [row[nth] for row in page.evaluate("() => probe.cells()")]


def test_every_run_is_a_line_with_its_facts(page):
    rows = {row[0]: row for row in page.evaluate("() => probe.cells()")}
    assert rows["run a"][1:8] == ["▶Training", "120 of 500", "3.25", "5,123", "2", "top_k", "ana"]
    assert rows["run b"][1:6] == ["❚❚Paused", "1,200", "2.50", "1,000", "1"]
    assert rows["run c"][1:6] == ["!Crashed", "10 of 100", "\u2013", "\u2013", "0"]
    assert "d" in rows, "a run without a title has its id"
    assert page.locator(".moe-lead").text_content() == "4 runs: 1 training, 1 paused, 1 finished and 1 crashed."
    assert "the loss is no number" in page.locator("[data-status=crashed]").get_attribute("title")


@pytest.mark.parametrize(
    ("heading", "first", "again"),
    [
        ("Loss", ["2.50", "3.25", "10.5", "\u2013"], ["10.5", "3.25", "2.50", "\u2013"]),
        ("Run", ["d", "run a", "run b", "run c"], ["run c", "run b", "run a", "d"]),
        ("Step", ["1,200", "120 of 500", "10 of 100", "10 of 100"], ["10 of 100", "10 of 100", "120 of 500", "1,200"]),
    ],
)
def test_a_heading_sorts_and_sorts_back(page, heading, first, again):
    at = {"Run": 0, "Step": 2, "Loss": 3}[heading]
    button = page.get_by_role("button", name=heading, exact=True)
    button.click()
    assert column(page, at) == first
    button.press("Enter")
    assert column(page, at) == again
    sorted_by = page.locator("[aria-sort]")
    assert sorted_by.count() == 1 and sorted_by.text_content() == heading


def test_a_press_chooses_the_run(page):
    page.get_by_role("button", name="run b").click()
    assert page.evaluate("() => [model.get('run_id'), model.get('selection').run]") == ["b", "b"]
    assert page.locator("tr[aria-current=true]").get_attribute("data-run") == "b"
    page.locator("tr[data-run=c] td").first.click()
    assert page.evaluate("() => model.get('run_id')") == "c"


def test_keys_go_through_the_runs(page):
    names = column(page, 0)
    page.locator(".moe-open").first.focus()
    for key, at in (("ArrowDown", 1), ("End", 3), ("ArrowDown", 3), ("ArrowUp", 2), ("Home", 0)):
        page.keyboard.press(key)
        assert page.evaluate("() => document.activeElement.textContent") == names[at]
    page.keyboard.press("Enter")
    assert page.locator("tr[aria-current=true] .moe-open").text_content() == names[0]


def test_news_keep_the_order_the_choice_and_the_focus(page):
    page.get_by_role("button", name="Loss", exact=True).click()
    page.get_by_role("button", name="run a").click()
    page.evaluate(
        "(runs) => model.set('runs', runs)", [*RUNS[1:], {**RUNS[0], "loss": 1.5, "step": 121}, run("e", loss=2.0)]
    )
    assert column(page, 3) == ["1.50", "2.00", "2.50", "10.5", "\u2013"]
    assert page.evaluate("() => document.activeElement.textContent") == "run a"
    assert page.locator("tr[aria-current=true] .moe-open").text_content() == "run a"


def test_ages_go_on_without_news_and_stop_with_the_view(open_view):
    page = open_view("run_table", b"")
    page.evaluate("() => window.cleanup()")
    page.clock.install()
    page.evaluate("async () => { window.model.set('runs', []); }")
    page.clock.run_for(20_000)
    assert page.evaluate("() => document.querySelector('#host').childElementCount") == 0


def test_no_run_is_a_sentence(open_view):
    page = open_view("run_table", b"")
    assert page.locator(".moe-lead").text_content() == "No run is there yet."
    assert not page.locator("table").is_visible()


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_accessible_and_fits_a_narrow_page(open_view, axe, dark):
    page = open_view("run_table", b"", dark=dark, width=360)
    page.evaluate("(runs) => model.set('runs', runs)", RUNS)
    assert axe(page) == []
    assert page.evaluate("() => probe.worstContrast()")[0] >= 4.5
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    assert page.evaluate("() => probe.tooSmall()") == []


def test_a_hostile_title_is_only_text(open_view):
    page = open_view("run_table", b"")
    page.evaluate(
        "(runs) => model.set('runs', runs)", [run("<i>", title="<script>window.hacked=1</script>", owner="<img src=x>")]
    )
    assert column(page, 0) == ["<script>window.hacked=1</script>"]
    assert page.evaluate("() => document.querySelectorAll('.moe-view script, .moe-view img').length") == 0
