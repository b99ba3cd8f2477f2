"""The place where experts are called: one listener a thread, known implementations, forced decisions that fit."""

import pytest
import torch

from workbench.model.host import HostModel
from workbench.model.host.seam import Decision, Seam


def test_an_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match=r"implementation must be one of eager, .*batched_mm.*, got 'fast'"):
        Seam("fast")


def test_a_pass_within_a_pass_is_refused():
    seam = Seam()
    with seam.listening(), pytest.raises(RuntimeError, match="finish it before the next"), seam.listening():
        pass
    with seam.listening() as heard:
        assert heard == {}


def test_a_forced_decision_is_what_the_experts_get(folder, token_ids):
    host = HostModel.open(folder("olmoe"))
    got = {}

    def plug(layer, hidden, expert, weight, module):
        got[layer] = (expert, weight)
        return torch.zeros_like(hidden)

    host.plug_experts(plug)
    expert, weight = torch.full((26, 3), 5), torch.full((26, 3), 0.25)
    expert[4] = -1
    forced = {n: Decision(expert=expert, weight=weight) for n in range(3)}
    own = host.forward(token_ids).output.sites[0].routing
    sites = host.forward(token_ids, forced=forced).output.sites
    assert torch.equal(got[1][0][:4], expert[:4]) and torch.equal(got[1][1][5:], weight[5:])
    assert torch.equal(sites[0].routing.expert[4], own.expert[4]), "-1 leaves a row to the router"


def test_a_forced_decision_of_another_shape_is_refused(folder, token_ids):
    host = HostModel.open(folder("olmoe"))
    forced = {n: Decision(expert=torch.zeros(26, 2, dtype=torch.long), weight=torch.ones(26, 2)) for n in range(3)}
    with pytest.raises(ValueError, match="26 tokens with 3 experts each in MoE layer 0, got 26 with 2"):
        host.forward(token_ids, forced=forced)
    # the failed pass is over: the next one is heard.
    assert len(host.forward(token_ids).output.sites) == 3
