"""Tokens by domain and by token id."""

import inspect

import pytest

from workbench.analysis._choices import choices
from workbench.analysis._groups import labelled_tokens


@pytest.fixture
def found(traced):
    domain = ["prose", "code", "prose", "code", "law"]
    return choices(traced({"expert": [[[0], [1], [2], [3], [0]]], "domain": domain, "ids": [7, 9, 7, 9, 9]}))


def test_rare_labels_are_left_out_and_the_rest_numbered(found):
    groups = labelled_tokens(found, "domain", 2)
    assert groups.names.tolist() == ["code", "prose"]
    assert groups.label.tolist() == [1, 0, 1, 0]
    assert groups.found.expert[0, :, 0].tolist() == [0, 1, 2, 3]
    assert groups.over == "4 train tokens, 1 layers; routers: top_k; 2 labels by domain"
    assert labelled_tokens(found, "token_id", 3, at_least_labels=1).names.tolist() == [9]


def test_tokens_of_unknown_domain_do_not_count(traced):
    trace = traced({"expert": [[[0]]]}, {"expert": [[[1], [2]]], "domain": ["a", "b"], "step": 2})
    assert labelled_tokens(choices(trace), "domain", 1).found.num_tokens == 2


def test_too_few_labels_say_what_there_is(found):
    with pytest.raises(
        LookupError, match=r"2 labels with min_count=3 .* got 0 by domain \(the largest has 2\) in 5 tr"
    ):
        labelled_tokens(found, "domain", 3)
    with pytest.raises(ValueError, match=r"by must be one of domain, token_id; got 'tokenid' \(did you mean"):
        # below the check of types, which only tests have.
        inspect.unwrap(labelled_tokens)(found, "tokenid", 1)
