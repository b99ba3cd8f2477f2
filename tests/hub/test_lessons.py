"""A lesson is bounded, and its link carries every setting."""

from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.hub.lessons import LESSONS, encode_link, parse_link, read_request
from workbench.hub.schema import CommandError

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["tiny", "small", "base"]),
        "router": st.sampled_from(["switch", "top_k"]),
        "router_args": st.dictionaries(
            st.sampled_from(["a", "b"]), st.integers(0, 9) | st.booleans() | st.text(max_size=9)
        ),
        "shadow": st.none() | st.just("null") | st.just("switch"),
        "seed": st.integers(0, 2**31 - 1),
        "learning_rate": st.floats(1e-6, 1),
        "balance": st.none() | st.floats(0, 10),
    },
)


@settings(max_examples=40)
@given(st.sampled_from(sorted(LESSONS)), OPTIONS)
def test_a_link_brings_back_what_it_was_made_of(preset, options):
    if options.get("shadow") == "null":
        del options["shadow"]  # a router of that name cannot be told from none; no router has it
    name, found = parse_link(encode_link(preset, options))
    assert name == preset
    assert found == LESSONS[preset].complete(options)


@pytest.mark.parametrize("name", LESSONS)
def test_every_lesson_starts_as_it_is_and_describes_itself(name):
    shown = LESSONS[name].to_json()
    assert shown["title"]
    assert shown["description"].endswith((".", "?"))
    assert read_request({"link": shown["link"]}) == read_request({"preset": name})
    assert set(dict(parse_qsl(shown["link"], keep_blank_values=True))) == {"preset", *shown["options"]}
    assert all("default" in option for option in shown["options"].values())


def test_a_lesson_has_its_own_settings():
    assert LESSONS["without_balance"].complete({})["balance"] == 0
    assert LESSONS["first_run"].complete({})["balance"] is None
    assert LESSONS["without_balance"].complete({"balance": 0.5})["balance"] == 0.5


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({}, "preset and options, or link"),
        ({"preset": "first_run", "link": "preset=first_run"}, "preset and options, or link"),
        ({"preset": "first_run", "code": "import os"}, "preset and options, or link"),
        ({"preset": "nothing"}, "no preset is called 'nothing'; choose first_run, "),
        ({"preset": ["first_run"]}, "no preset is called"),
        ({"preset": "first_run", "options": {"steps": 10**9}}, "steps must be a whole number from 1 to 100000"),
        ({"preset": "first_run", "options": {"model": "../x"}}, "model must be one of tiny, small, base"),
        ({"preset": "first_run", "options": {"corpus": "/etc/passwd"}}, "corpus must be a name"),
        ({"preset": "first_run", "options": {"folder": "x"}}, "no argument 'folder'"),
        ({"link": 7}, "link must be a text"),
        ({"link": "preset=first_run&preset=two_routers"}, "every setting once"),
        ({"link": "seed=1"}, "no preset is called None"),
        ({"link": "preset=first_run&seed=x"}, "seed must be a whole number"),
        ({"link": "preset=first_run&router_args=[]"}, "router_args must be an object"),
        ({"link": "preset=first_run&" + urlencode({"corpus": "<script>"})}, "corpus must be a name"),
        ({"link": "a" * 5000}, "at most 4,096 characters"),
    ],
)
def test_what_cannot_be_started_is_422(message, said):
    with pytest.raises(CommandError, match=said) as refused:
        read_request(message)
    assert refused.value.code == 422
