"""Arguments are checked for kind and bounds, and a refusal says what to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.hub.schema import Argument, CommandError, check_arguments, parse_json, shown

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("argument", "good", "bad"),
    [
        (Argument(kind="integer", low=1, high=3), [1, 3], [0, 4, 1.0, True, "1", None]),
        (Argument(kind="number", low=0, high=1), [0, 0.5, 1], [1.1, float("nan"), float("inf"), False, "0"]),
        (Argument(kind="boolean"), [True, False], [0, 1, "true", None]),
        (Argument(kind="text", low=1, high=3), ["a", "abc"], ["", "abcd", 1, None]),
        (Argument(kind="name"), ["top_k", "A1"], ["", "1a", "a.b", "a" * 65, "a/b", "os; rm"]),
        (Argument(kind="name", is_nullable=True), ["top_k", None], [""]),
        (
            Argument(kind="scalars"),
            [{}, {"a": 1, "b": None, "c": "x", "d": 0.5, "e": True}],
            [[], {"a": []}, {"a": {}}, {"a b": 1}, {"a": 2**63}, {"a": "x" * 257}, {f"a{i}": 0 for i in range(17)}],
        ),
    ],
)
def test_each_kind_takes_what_it_says(argument, good, bad):
    assert [value for value in good if not argument.accepts(value)] == []
    assert [value for value in bad if argument.accepts(value)] == []


@given(JSON)
def test_any_json_is_accepted_or_refused_with_422(value):
    arguments = {"count": Argument(kind="integer", low=1, high=9, default=1), "args": Argument(kind="scalars")}
    try:
        checked = check_arguments("step", arguments, value)
    except CommandError as error:
        assert error.code == 422
        assert error.reason.startswith("step")
    else:
        assert set(checked) == {"count", "args"}


def test_defaults_are_filled_in_and_required_arguments_asked_for():
    arguments = {"count": Argument(kind="integer", low=1, high=9, default=1)}
    assert check_arguments("step", arguments, {}) == {"count": 1}
    with pytest.raises(CommandError, match="annotate needs text: a text of 1 to 500 characters; send it in args"):
        check_arguments("annotate", {"text": Argument(kind="text", low=1, high=500)}, {})


def test_a_refusal_says_what_was_expected_what_came_and_what_to_do():
    with pytest.raises(CommandError) as refused:
        check_arguments("step", {"count": Argument(kind="integer", low=1, high=9)}, {"count": 10})
    assert refused.value.reason == (
        "step: count must be a whole number from 1 to 9, got 10; correct it and send it again"
    )
    with pytest.raises(CommandError, match="step has no argument 'exec'; it takes count"):
        check_arguments("step", {"count": Argument(kind="integer")}, {"exec": "x"})


def test_a_refusal_is_never_long():
    assert len(shown("x" * 10**6)) == 80


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b'{"a": NaN}', 400),
        (b"[" * 60_000, 400),
        (b'{"a": ' + b"9" * 60_000 + b"}", 400),
        (b" " * (64 * 1024 + 1), 413),
    ],
)
def test_what_is_no_message_is_refused(body, code):
    with pytest.raises(CommandError) as refused:
        parse_json(body)
    assert refused.value.code == code
    assert len(refused.value.reason) < 300


def test_a_message_is_an_object():
    assert parse_json(b'{"id": "a"}') == {"id": "a"}
