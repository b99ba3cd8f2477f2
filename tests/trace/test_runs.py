"""Passes measured together give what each gives alone."""

import numpy as np
import pytest
import torch

from workbench.core.records import Output
from workbench.trace.pack_load import load_columns
from workbench.trace.pack_routing import routing_columns
from workbench.trace.passes import Pass, choose, measure
from workbench.trace.runs import resolve


@pytest.fixture
def decode(forward):
    """Forty decode steps of two rows, with a change of router in the middle."""
    made = [forward(rows=2, columns=1, seed=s, **({"router": "other"} if s > 20 else {})) for s in range(40)]
    return [
        Pass(step=s, phase="decode", tokens=2, take=2, with_prob=True, batch=batch, sequence=[0, 1], position=[s, s],
             sites=output.sites)
        for s, (batch, output) in enumerate(made)
    ]  # fmt: skip


def test_together_or_alone_is_the_same(decode):
    together = resolve(decode)
    alone_sums = [tuple(measure(site) for site in item.sites) for item in decode]
    alone_choices = [(2 * at, choose(site, 2, with_prob=True)) for at, item in enumerate(decode) for site in item.sites]
    for pack, one, two in (
        (load_columns, together[0], alone_sums),
        (lambda items, found: routing_columns(items, found, str), together[1], alone_choices),
    ):
        first, second = pack(decode, one), pack(decode, two)
        assert first.keys() == second.keys()
        for name in first:
            if first[name].dtype.kind == "f":
                np.testing.assert_allclose(first[name], second[name], rtol=1e-6, err_msg=name)
            else:
                assert first[name].tolist() == second[name].tolist(), name


def test_runs_are_few_where_passes_are_alike(decode):
    assert len(resolve(decode)[1]) == 2 * 2
    assert len(resolve(decode)[0]) == 40


def test_a_probe_has_decisions_and_no_sums(decode):
    batch, sites = decode[0].batch, decode[0].sites
    probe = Pass(step=0, phase="eval", is_probe=True, tokens=2, take=2, batch=batch, sequence=[0, 1], position=[0, 0],
                 sites=sites)  # fmt: skip
    sums, choices = resolve([probe])
    assert sums == [()]
    assert len(choices) == 2


def test_a_model_without_experts_leaves_rows_without_layers(forward):
    batch, _ = forward()
    output = Output(logits=torch.zeros(1, 3, 1), sites=())
    assert output.sites == ()
    item = Pass(step=1, phase="train", batch=batch)
    columns = load_columns([item], resolve([item])[0])
    assert columns["load"].shape == (1, 0, 0)
