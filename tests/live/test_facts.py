"""What viewers are told of a training."""

import json

from workbench.live.facts import choices, facts_of
from workbench.routers import ROUTERS


def test_the_facts_are_those_of_the_training_and_fit_into_json(session):
    facts = facts_of(session.trainer, None, None)
    assert (facts["step"], facts["loss"], facts["router"], facts["num_layers"], facts["num_experts"]) == (
        0,
        None,
        "top_k",
        4,
        8,
    )
    report = list(session.train(2, progress=False))[-1]
    facts = json.loads(json.dumps(facts_of(session.trainer, report, None), allow_nan=False))
    assert (facts["step"], facts["loss"], facts["tokens"]) == (2, report.loss, 32)
    assert facts["can_rewind"] is False and facts["is_steerable"] is True
    session.swap_router("hash")
    facts = facts_of(session.trainer, report, None)
    assert facts["can_rewind"] is True and facts["is_steerable"] is False


def test_every_router_can_be_chosen_and_says_what_it_changes():
    offered = choices()["router"]
    assert [choice["name"] for choice in offered] == list(ROUTERS.names())
    assert all(choice["changes"] for choice in offered)
