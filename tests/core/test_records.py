"""Records that travel between floors: frozen, plain where they are saved, short where they are shown."""

import json
from dataclasses import FrozenInstanceError, fields

import pytest
import torch

from workbench.core import Batch, Output, Site, SparseRouting, StepReport, Tally
from workbench.core.records import CacheEvent, ControlEvent, ExpertKey

SWAP = ControlEvent(
    op="swap_router",
    args={"name": "switch"},
    time_ns=5,
    actor="ada",
    accepted_step=9,
    applied_step=10,
    result="gate drawn anew",
)


@pytest.fixture
def report() -> StepReport:
    return StepReport(
        step=10,
        loss=2.5,
        aux_losses={"balance": 1.25},
        aux_weights={"balance": 0.01},
        learning_rate=3e-4,
        grad_norm=0.5,
        tokens=40_960,
        tokens_per_second=5123.4,
        wall_seconds=8.0,
        bits_per_byte={"german": 2.125},
        events=(SWAP,),
    )


@pytest.fixture
def site() -> Site:
    routing = SparseRouting.from_topk(torch.tensor([[0], [1]]), torch.ones(2, 1), num_experts=2)
    return Site(layer=1, iteration=0, module="blocks.1.feed_forward", router="switch", routing=routing)


def test_an_expert_key_is_a_pair_that_can_be_a_key():
    key = ExpertKey(3, 1)
    assert (key.layer, key.expert, {key: "hit"}[(3, 1)]) == (3, 1, "hit")


def test_no_record_can_be_changed(report, site):
    counts = torch.zeros(2, dtype=torch.long)
    tally = Tally(layer=0, iteration=0, demand=counts, kept=counts, losses={}, tokens=0)
    batch = Batch(token_ids=torch.zeros(1, 2, dtype=torch.long))
    event = CacheEvent(time_ns=0, step=0, token=0, key=ExpertKey(0, 0), kind="hit", bytes=0, stall_seconds=0.0)
    output = Output(logits=torch.zeros(1, 2, 3), sites=())
    for record in (report, site, tally, batch, event, output, SWAP):
        with pytest.raises(FrozenInstanceError):
            setattr(record, fields(record)[0].name, None)


def test_a_report_is_plain_data_that_json_can_carry(report):
    data = json.loads(json.dumps(report.to_json()))
    assert data["events"][0]["args"] == {"name": "switch"}
    assert data["bits_per_byte"] == {"german": 2.125}
    assert StepReport(**{**data, "events": (ControlEvent(**data["events"][0]),)}) == report


def test_a_report_shows_losses_domains_and_events(report):
    html = report._repr_html_()
    for text in (
        "step 10",
        "2.5000",
        "3.00e-04",
        "0.500",
        "5,123",
        "balance loss",
        "1.2500",
        "german [bit/byte]",
        "2.125",
    ):
        assert text in html
    assert "event: swap_router" in html
    assert "gate drawn anew" in html


def test_an_output_shows_its_shape_and_its_routings(site):
    html = Output(logits=torch.zeros(1, 2, 50), sites=(site,))._repr_html_()
    assert "1 x 2 x 50" in html
    assert "switch: SparseRouting(tokens=2" in html


def test_a_site_acts_unless_it_is_a_shadow(site):
    assert site.is_shadow is False


def test_records_of_tensors_compare_by_identity():
    batch = Batch(token_ids=torch.zeros(1, 2, dtype=torch.long))
    assert batch != Batch(token_ids=batch.token_ids)
    assert (batch.target_ids, batch.mask, batch.domain, batch.domains) == (None, None, None, ())
