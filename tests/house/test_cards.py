"""Every registered router says where it comes from and whether it looks ahead."""

import inspect
import re

import pytest

from workbench.core import Card, Router
from workbench.routers import ROUTERS

# Controls, which no paper owns. Anything else without an arXiv identifier is an unsourced router.
CONTROLS = {"dense", "random"}


@pytest.fixture(params=ROUTERS.names())
def name(request) -> str:
    return request.param


@pytest.fixture
def router(name) -> type[Router]:
    return ROUTERS.get(name)


def test_the_registry_is_not_empty():
    assert {"top_k", "switch", "expert_choice"} <= set(ROUTERS.names())


def test_it_has_a_complete_card(router, name):
    assert isinstance(router.card, Card)
    assert router.card.title
    assert router.card.changes
    if name in CONTROLS:
        return
    assert re.fullmatch(r"\d{4}\.\d{4,5}", router.card.arxiv or ""), f"{name} needs an arXiv identifier"
    assert router.card.year is not None
    assert 1991 <= router.card.year


def test_its_docstring_names_the_source(router, name):
    source = re.search(r"Source: (.+)", inspect.getdoc(router) or "")
    assert source, f"{name}: the class docstring needs a line `Source: arXiv ..., section ...`"
    if name not in CONTROLS:
        assert router.card.arxiv in (inspect.getdoc(router) or "")


def test_it_says_whether_it_looks_ahead(router):
    made = router(8, 4)
    assert isinstance(made.causal, bool)
    assert isinstance(made.causal_in_training, bool)


def test_it_is_final(router):
    assert [cls for cls in map(ROUTERS.get, ROUTERS.names()) if cls is not router and issubclass(cls, router)] == []
