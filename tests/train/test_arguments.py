"""What a person typed is refused with the right names and types before anything is built."""

from typing import Literal

import pytest

from workbench.core import Spec
from workbench.train.arguments import check_router, check_type


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (3, int),
        (3, float),
        (0.5, float),
        (True, bool),
        ("wsd", Literal["wsd", "cosine"]),
        ("anything", Literal["wsd", "cosine"]),
        (None, int | None),
        (3, int | None),
        ([1, 2], list[int]),
        ("x", object),
    ],
)
def test_a_value_of_the_annotated_type_passes(value, annotation):
    check_type("x", value, annotation)


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (2.5, int, "int"),
        ("8", int, "int"),
        (True, int, "int"),
        (True, float, "float"),
        ("fast", float, "float"),
        (1, bool, "bool"),
        (None, int, "int"),
        ("x", int | None, "int or None"),
        (3, Literal["wsd", "cosine"], "str"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(value, annotation, expected):
    with pytest.raises(ValueError) as refused:
        check_type("x", value, annotation)
    assert str(refused.value) == f"x must be {expected}, got {value!r}"


def test_a_known_router_with_its_arguments_passes():
    spec = Spec("top_k", {"top_k": 1, "scale": 2, "score": "sigmoid", "selection_bias": True})
    assert check_router(spec) is spec


def test_an_unknown_router_is_answered_with_the_right_name():
    with pytest.raises(LookupError, match="did you mean 'switch'"):
        check_router(Spec("swich"))


def test_an_unknown_argument_is_answered_with_the_right_name():
    with pytest.raises(ValueError, match=r"switch has no argument 'jiter' \(did you mean 'jitter'\?\)"):
        check_router(Spec("switch", {"jiter": 0.1}))


def test_an_argument_of_another_type_is_refused():
    with pytest.raises(ValueError, match="argument top_k of router top_k must be int, got 'two'"):
        check_router(Spec("top_k", {"top_k": "two"}))
