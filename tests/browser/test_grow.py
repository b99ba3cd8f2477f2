"""A payload that grows in the browser is the concatenation that numpy makes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.payloads.container import encode

pytestmark = pytest.mark.browser

# Decodes payloads, grows the first by the others, and returns header and numbers; `again` grows one of them twice.
GROW = """([texts, again]) => {
  const read = (text) => decode(Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer);
  const listed = ({ header, arrays }) => ({
    header,
    arrays: Object.fromEntries(Object.entries(arrays).map(([name, { data, shape }]) =>
      [name, { shape, data: Array.from(data, String), type: data.constructor.name }])),
  });
  let grown = null;
  const all = [];
  for (const text of texts) {
    grown = grow(grown, read(text));
    all.push(grown);
  }
  if (again >= 0) grow(all[again], read(texts[again + 1]));
  return all.map(listed);
}"""


@pytest.fixture
def page(helpers):
    """A page with the functions to test."""
    return helpers("_grow.js", "_payload.js")


@pytest.fixture(scope="module")
def grown(b64):
    """Header and arrays after every part."""

    def run(page, *parts: bytes, again: int = -1):
        found = page.evaluate(GROW, [[b64(part) for part in parts], again])
        return [(step["header"], {k: as_array(v) for k, v in step["arrays"].items()}) for step in found]

    return run


def as_array(listed: dict) -> np.ndarray:
    return np.array([float(text) for text in listed["data"]]).reshape(listed["shape"])


def part(rules: dict[str, str], arrays: dict[str, np.ndarray], **header) -> bytes:
    return encode("expert_load", {"grow": rules, **header} if rules else header, arrays)


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=6),
    st.sampled_from(["int32", "float32", "float64"]),
    st.sampled_from([(), (3,), (2, 3)]),
)
def test_rows_follow_rows_whatever_their_type(page_for_all, grown, counts, dtype, inner):
    rng = np.random.default_rng(len(counts))
    pieces = [(rng.random((count, *inner)) * 100).astype(dtype) for count in counts]
    parts = [part({}, {"x": pieces[0]}), *(part({"x": "append"}, {"x": piece}) for piece in pieces[1:])]
    for i, (_, arrays) in enumerate(grown(page_for_all, *parts)):
        assert np.array_equal(arrays["x"], np.concatenate(pieces[: i + 1]).astype(float))


@pytest.fixture(scope="module")
def page_for_all(helpers_module):
    """One page for many examples."""
    return helpers_module("_grow.js", "_payload.js")


def test_running_sums_go_on_from_the_last_row(page, grown):
    whole = np.random.default_rng(0).random((9, 2, 3)).cumsum(0)
    parts = [part({}, {"total": whole[:4]})]
    parts += [part({"total": "cumulate"}, {"total": whole[a:b] - whole[a - 1]}) for a, b in ((4, 5), (5, 9))]
    assert np.allclose(grown(page, *parts)[-1][1]["total"], whole, rtol=1e-15)


def test_wider_rows_leave_nothing_before_them_and_sums_start_at_zero(page, grown):
    narrow, wide = np.ones((2, 1, 2), np.float32), np.full((1, 1, 4), 5, np.float32)
    rules = {"load": "append", "total": "cumulate", "expert": "append"}
    first = {"load": narrow, "total": narrow.cumsum(0), "expert": np.zeros((2, 2), np.int32)}
    second = {"load": wide, "total": wide, "expert": np.full((1, 4), 7, np.int32)}
    [_, (_, arrays)] = grown(page, part({}, first), part(rules, second))
    nan = np.nan
    assert np.array_equal(arrays["load"][:, 0], [[1, 1, nan, nan], [1, 1, nan, nan], [5, 5, 5, 5]], equal_nan=True)
    assert arrays["total"][:, 0].tolist() == [[1, 1, 0, 0], [2, 2, 0, 0], [7, 7, 5, 5]]
    assert arrays["expert"].tolist() == [[0, 0, -1, -1], [0, 0, -1, -1], [7, 7, 7, 7]]


def test_narrower_rows_are_filled_up(page, grown):
    arrays = {"load": np.ones((1, 2, 3)), "total": np.ones((1, 2, 3))}
    less = {"load": np.full((1, 1, 2), 4.0), "total": np.full((1, 1, 2), 4.0)}
    [_, (_, found)] = grown(page, part({}, arrays), part({"load": "append", "total": "cumulate"}, less))
    assert np.array_equal(found["load"][1], [[4, 4, np.nan], [np.nan] * 3], equal_nan=True)
    assert found["total"][1].tolist() == [[5, 5, 1], [1, 1, 1]]


def test_events_are_appended_other_values_replaced_and_new_arrays_brought(page, grown):
    first = part({}, {"x": np.zeros(1)}, events=[{"step": 1}], phases=["train"], title="old")
    second = part(
        {"x": "append"}, {"x": np.ones(1), "eval.x": np.ones(3)}, events=[{"step": 2}], phases=["train", "eval"]
    )
    third = part({"x": "append"}, {"x": np.ones(1), "eval.x": np.zeros(2)}, events=[])
    *_, (header, arrays) = grown(page, first, second, third)
    assert header["events"] == [{"step": 1}, {"step": 2}]
    assert header["phases"] == ["train", "eval"]
    assert header["title"] == "old"
    assert arrays["x"].tolist() == [0, 1, 1]
    assert arrays["eval.x"].tolist() == [0, 0], "not named in grow, so it replaces"
    assert "grow" not in header and "arrays" not in header


def test_no_payload_ever_changes_even_if_it_is_continued_twice(page, grown):
    parts = [part({}, {"x": np.arange(3.0)}), *(part({"x": "append"}, {"x": np.full(2, v)}) for v in (7.0, 8.0, 9.0))]
    found = grown(page, *parts, again=1)
    assert [arrays["x"].tolist() for _, arrays in found] == [
        [0, 1, 2],
        [0, 1, 2, 7, 7],
        [0, 1, 2, 7, 7, 8, 8],
        [0, 1, 2, 7, 7, 8, 8, 9, 9],
    ]


def test_a_view_shows_what_was_grown(open_view, payload_of, samples, settle, b64):
    page = open_view("loss_curves", b"")
    page.evaluate("(text) => { window.first = text; }", b64(payload_of("loss_curves", run=samples.run_group(steps=5))))
    page.evaluate(
        "(text) => model.set('payload', { header: { empty: 'Nothing yet.', statements: [], badge: '' }, arrays: {} })",
        "",
    )
    settle(page)
    assert page.locator(".moe-message").text_content() == "Nothing yet."
