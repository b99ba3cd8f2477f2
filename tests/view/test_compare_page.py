"""The page of a comparison: readable without script or network, honest in its first sentence."""

import re

import pytest

from workbench.train.measures import MEASURES
from workbench.train.results import Results
from workbench.view.compare_page import lead, write_comparison


def results_of(losses: dict[str, list[float]], **flags) -> Results:
    cells = [
        {"router": router, "seed": seed, "bits_per_byte": {"a": loss}, **dict.fromkeys(MEASURES, 1.0)}
        | flags.get(router, {})
        for router, values in losses.items()
        for seed, loss in enumerate(values)
    ]
    return Results.of(cells, routers=list(losses), seeds=[0, 1, 2], facts={"steps": 5, "model": "<tiny>"})


def test_the_first_sentence_says_whether_the_best_stands_out():
    clear = results_of({"base": [3.0, 3.2, 3.1], "other": [2.0, 2.2, 2.11]})
    assert lead(clear).startswith("Lowest held-out loss: other with 2.1033 ± 0.1002 bits per byte. That is -0.9967")
    assert "which stands out of the noise" in lead(clear)
    blurred = results_of({"base": [3.0, 3.2, 3.1], "other": [2.0, 3.9, 3.0]})
    assert "which is within the noise" in lead(blurred)
    assert lead(results_of({"base": [1.0, 1.1, 1.2], "other": [2.0, 2.2, 2.11]})).endswith("bits per byte.")


def test_nothing_to_rank_is_said():
    assert "No router could be ranked" in lead(results_of({"base": [1.0, 1.0, 1.0]}, base={"sees_future": True}))


def test_the_page_holds_every_number_and_no_script(tmp_path):
    results = results_of(
        {"base": [3.0, 3.2, 3.1], "other": [2.0, 3.9, 3.0], "seer": [1, 1, 1.1]}, seer={"sees_future": True}
    )
    page = write_comparison(results, tmp_path / "new" / "a.html").read_text("utf-8")
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"https?://", page.replace("http://www.w3.org", ""))
    assert "&lt;tiny&gt;" in page
    for row in results.rows():
        assert all(value.replace("&", "&amp;") in page for value in row.values())
    assert page.count('class="future"') == 3
    assert page.count('class="seed"') == 6


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [1e-6, 2e-6, 3e-6], [5.0, 500.0, 1.0]])
def test_any_range_can_be_drawn(values, tmp_path):
    page = write_comparison(results_of({"base": values}), tmp_path / "a.html").read_text("utf-8")
    assert page.count("<circle") == 3
    assert "nan" not in page.split("<svg")[1].split("</svg>")[0]
