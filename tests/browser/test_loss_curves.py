"""The loss curves are where the losses are."""

import numpy as np
import pytest

pytestmark = pytest.mark.browser

COLUMNS = "(wanted) => probe.columns(wanted)"
BLUE, EVENT, VERMILLION = [0, 114, 178], [179, 71, 0], [213, 94, 0]


def facts(page) -> dict[str, str]:
    keys = page.locator(".moe-facts dt").all_text_contents()
    return dict(zip(keys, page.locator(".moe-facts dd").all_text_contents(), strict=True))


def hover(page, share: float) -> dict[str, str]:
    """What the view says at a place across the first picture."""
    box = page.locator("canvas").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
    return facts(page)


def test_the_curve_runs_through_the_losses(open_view, payload_of, samples, settle):
    run = samples.run_group(steps=120)
    page = open_view("loss_curves", payload_of("loss_curves", run=run))
    page.get_by_label("Smoothing").press("Home")
    settle(page)
    columns = {int(x): y for x, (y, _) in page.evaluate(COLUMNS, [0, *BLUE]).items()}
    xs = np.array(sorted(columns))
    steps = 1 + (xs - xs.min()) / (xs.max() - xs.min()) * 119
    losses = np.interp(steps, run["step"].values, run["loss"].values)
    heights = np.array([columns[x] for x in xs])
    slope, offset = np.polyfit(losses, heights, 1)
    assert slope < -10, "a larger loss is higher up"
    assert np.abs(heights - (slope * losses + offset)).max() < 6
    assert np.median(np.abs(heights - (slope * losses + offset))) < 1


def test_the_readout_under_the_pointer_is_that_step(open_view, payload_of, samples):
    run = samples.run_group(steps=120)
    page = open_view("loss_curves", payload_of("loss_curves", run=run))
    for share in (0.2, 0.5, 0.9):
        shown = hover(page, share)
        row = run.sel(step=int(shown["Step"]))
        assert float(shown["Loss"]) == pytest.approx(float(row["loss"]), rel=1e-3)
        assert float(shown["Learning rate"]) == pytest.approx(float(row["lr"]), rel=1e-2)
        assert int(shown["Tokens per second"].replace(",", "")) == pytest.approx(float(row["tokens_per_second"]), abs=1)


def test_the_legend_gives_each_domain_its_value_at_the_nearest_evaluation(open_view, payload_of, samples):
    run = samples.run_group(steps=120, every=20)
    page = open_view("loss_curves", payload_of("loss_curves", run=run))
    rows = zip(
        page.locator(".moe-legend-name").all_text_contents(),
        page.locator(".moe-legend-value").all_text_contents(),
        strict=True,
    )
    last = run["eval_loss"].sel(step=120)
    shown = {name: float(value) for name, value in rows}
    assert shown == {name: pytest.approx(float(last.sel(domain=name)), rel=5e-3) for name in samples.DOMAINS}
    assert list(shown) == sorted(shown, key=shown.get, reverse=True)
    hover(page, 0.35)
    title = page.locator(".moe-legend-title").text_content()
    at = run["eval_loss"].sel(step=int(title.removeprefix("At step ")))
    assert float(page.locator(".moe-legend-value").first.text_content()) == pytest.approx(
        float(at.sel(domain="json")), rel=5e-3
    )


def test_a_router_swap_stands_at_its_step_in_both_pictures(open_view, payload_of, samples):
    payload = payload_of("loss_curves", run=samples.run_group(steps=200), control=samples.control_group(step=120))
    page = open_view("loss_curves", payload)
    curve = sorted(map(int, page.evaluate(COLUMNS, [0, *BLUE])))
    expected = curve[0] + (120 - 1) / (200 - 1) * (curve[-1] - curve[0])
    for nth in (0, 1):
        columns = page.evaluate(COLUMNS, [nth, *EVENT])
        line = max(columns, key=lambda x: columns[x][1])
        assert int(line) == pytest.approx(expected, abs=2)
        assert columns[line][1] > 60, "a line through the whole picture"
    assert (
        page.locator(".moe-events li")
        .all_text_contents()[0]
        .startswith(
            "1Step 120: router changed to expert_choice (capacity_factor 2.0)top_k -> expert_choice: all 16 experts"
        )
    )
    page.locator(".moe-events button").click()
    assert facts(page)["Step"] == "120"


def test_pressing_a_domain_singles_out_its_line(open_view, payload_of, samples, settle):
    page = open_view("loss_curves", payload_of("loss_curves", run=samples.run_group()))
    assert len(page.evaluate(COLUMNS, [1, *VERMILLION])) > 200
    page.get_by_role("button", name="english_prose").click()
    page.mouse.move(5, 5)
    settle(page)
    assert len(page.evaluate(COLUMNS, [1, *VERMILLION])) == 0
    assert len(page.evaluate(COLUMNS, [1, *BLUE])) > 200


def test_keys_move_the_cursor_and_speak(open_view, payload_of, samples):
    run = samples.run_group(steps=100)
    page = open_view("loss_curves", payload_of("loss_curves", run=run))
    page.locator("canvas").first.focus()
    for key, step in (("Home", "1"), ("ArrowRight", "2"), ("PageDown", "12"), ("End", "100"), ("ArrowLeft", "99")):
        page.keyboard.press(key)
        assert facts(page)["Step"] == step
    assert page.locator("[aria-live=polite]").text_content().startswith(f"Step 99, Loss {float(run['loss'][98]):.3f}")
    page.keyboard.press("Enter")
    assert page.evaluate("() => model.get('selection')") == {"step": 99}


def test_a_loss_that_is_not_a_number_is_a_gap_and_a_sentence(open_view, payload_of, samples):
    run = samples.run_group(steps=40, domains=())
    run["loss"][19] = np.nan
    run["loss"][20:] = np.inf
    page = open_view("loss_curves", payload_of("loss_curves", run=run))
    assert "The loss is not a finite number at step 20." in page.locator(".moe-lead").text_content()
    assert (
        max(map(int, page.evaluate(COLUMNS, [0, *BLUE]))) < page.locator("canvas").first.bounding_box()["width"] * 0.6
    )
    page.locator("canvas").first.focus()
    page.keyboard.press("End")
    assert "Loss" not in facts(page)


def test_the_table_has_the_numbers(open_view, payload_of, samples):
    run = samples.run_group(steps=50, every=10)
    page = open_view("loss_curves", payload_of("loss_curves", run=run))
    page.get_by_role("button", name="Show the numbers").click()
    rows = page.evaluate("() => probe.cells()")
    assert [float(row[1]) for row in rows] == pytest.approx(run["loss"].values.tolist(), rel=1e-4)
    assert [float(cell) for cell in rows[19][6:]] == pytest.approx(run["eval_loss"].values[19].tolist(), rel=1e-3)
    assert rows[18][6:] == [""] * 7


def test_one_step_and_a_log_scale_do_not_break_it(open_view, payload_of, samples, settle):
    page = open_view("loss_curves", payload_of("loss_curves", run=samples.run_group(steps=1)))
    page.get_by_role("button", name="Log scale").click()
    settle(page)
    assert facts(page)["Step"] == "1"
    assert page.get_by_role("button", name="Log scale").get_attribute("aria-pressed") == "true"
