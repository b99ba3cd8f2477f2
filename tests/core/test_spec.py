"""A name and its arguments: read from text, checked against the constructor, saved as plain data."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core import Registry, Spec


class Lamp:
    def __init__(self, width: int, *, layer: int = 0, colour: str = "red", watts: float = 5.0):
        self.given = (width, layer, colour, watts)


class Plain:
    def __init__(self, width: int, *, layer: int = 0):
        self.given = (width, layer)


@pytest.fixture
def registry(monkeypatch) -> Registry:
    registry = Registry("workbench.routers", object)
    kinds = {"lamp": Lamp, "plain": Plain}

    def get(name: str) -> type:
        return kinds[name]

    monkeypatch.setattr(registry, "get", get)
    return registry


@pytest.mark.parametrize(
    ("text", "name", "args"),
    [
        ("switch", "switch", {}),
        (" switch : ", "switch", {}),
        ("top_k:top_k=4", "top_k", {"top_k": 4}),
        ("top_k:score=sigmoid, scale = 2.5", "top_k", {"score": "sigmoid", "scale": 2.5}),
        ("x:a=true,b=False,c=none,d=None,e=-1e-3", "x", {"a": True, "b": False, "c": None, "d": None, "e": -0.001}),
        ("x:nodes=[2, 4],name='a,b=c'", "x", {"nodes": [2, 4], "name": "a,b=c"}),
        ("x:grid=[[1,2],[3,4]],pair=(1,2),empty=''", "x", {"grid": [[1, 2], [3, 4]], "pair": (1, 2), "empty": ""}),
        ("x:path=a:b,it=it's,n=2", "x", {"path": "a:b", "it": "it's", "n": 2}),
        ("switch:capacity_factor=inf", "switch", {"capacity_factor": float("inf")}),
    ],
)
def test_a_spec_is_read_from_text(text, name, args):
    spec = Spec.parse(text)
    assert (spec.name, spec.args) == (name, args)
    assert [type(value) for value in spec.args.values()] == [type(value) for value in args.values()]


@pytest.mark.parametrize(("text", "wrong"), [("top_k:4", "4"), ("top_k:a=1,oops", "oops"), ("x:a=[1,2],b", "b")])
def test_an_argument_without_a_value_is_refused(text, wrong):
    with pytest.raises(ValueError) as error:
        Spec.parse(text)
    assert str(error.value) == f"expected name:key=value,key=value; got {wrong!r} in {text!r}"


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60)
@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), plain, max_size=4))
def test_text_and_back_is_the_same_spec(args):
    spec = Spec("top_k", args)
    assert Spec.parse(str(spec)) == spec


@pytest.mark.parametrize(
    "value", ["4", "true", "None", "inf", "", " a", "a,b", "[1", "a]", "it's", "x=y", "{[]}", "'q'", float("inf")]
)
def test_a_word_is_never_read_back_as_something_else(value):
    args = {"before": 1, "key": value, "after": [2]}
    assert Spec.parse(str(Spec("x", args))).args == args


def test_text_is_as_short_as_a_person_would_write_it():
    assert str(Spec("top_k", {"score": "sigmoid", "top_k": 4, "scale": 2.5})) == "top_k:score=sigmoid,top_k=4,scale=2.5"
    assert str(Spec("switch")) == "switch"


def test_plain_data_and_back_is_the_same_spec():
    spec = Spec("smile", {"nodes": [2, 4], "score": "sigmoid", "limit": None})
    assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_known_spec_builds_its_class(registry):
    assert Spec("lamp", {"colour": "blue"}).check(registry) is Lamp
    assert Spec("lamp", {"colour": "blue"}).build(registry, 8, layer=2).given == (8, 2, "blue", 5.0)


def test_an_unknown_argument_is_told_the_closest_and_all(registry):
    with pytest.raises(ValueError) as error:
        Spec("lamp", {"color": "blue"}).check(registry)
    assert str(error.value) == "lamp has no argument 'color' (did you mean 'colour'?). It takes: colour, watts."


def test_a_class_without_arguments_says_so(registry):
    with pytest.raises(ValueError) as error:
        Spec("plain", {"watts": 1}).check(registry)
    assert str(error.value) == "plain has no argument 'watts'. It takes: no arguments."


def test_the_layer_is_the_model_s_to_say_and_not_an_argument(registry):
    with pytest.raises(ValueError, match=r"^lamp has no argument 'layer'"):
        Spec("lamp", {"layer": 3}).build(registry, 8)


def test_the_real_routers_are_behind_their_names():
    routers = Registry("workbench.routers", "workbench.core.router:Router")
    with pytest.raises(
        LookupError, match=r"^workbench\.routers has no 'topk' \(did you mean 'top_k'\?\)\. Known names: "
    ):
        Spec("topk").check(routers)
    with pytest.raises(ValueError, match=r"^switch has no argument 'top_k'\. It takes: capacity_factor, eval_capacity"):
        Spec("switch", {"top_k": 2}).check(routers)


def test_a_list_of_specs_tells_arguments_from_names():
    found = Spec.parse_list("top_k:top_k=4,score=sigmoid, switch ,gshard:threshold=0.5")
    assert found == (
        Spec("top_k", {"top_k": 4, "score": "sigmoid"}),
        Spec("switch"),
        Spec("gshard", {"threshold": 0.5}),
    )
    assert Spec.parse_list("") == ()
    with pytest.raises(ValueError, match="got 'a=1' before any name"):
        Spec.parse_list("a=1,top_k")
