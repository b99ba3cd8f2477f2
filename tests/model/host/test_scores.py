"""Which function of the logits a router used, told from its weights."""

import pytest
import torch

from workbench.model.host.scores import probability, score_of
from workbench.model.host.seam import Decision

LOGIT = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


def decision(prob, *, k=2, renormalise=False, factor=1.0, dtype=torch.float32):
    weight, expert = prob.topk(k)
    if renormalise:
        weight = weight / weight.sum(-1, keepdim=True)
    return Decision(expert=expert, weight=(weight * factor).to(dtype), logit=LOGIT)


@pytest.mark.parametrize("name, score", [("softmax", LOGIT.softmax(-1)), ("sigmoid", LOGIT.sigmoid())])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_score_is_told_from_the_weights(name, score, dtype):
    for options in ({}, {"renormalise": True}, {"factor": 2.5}, {"renormalise": True, "factor": 2.5}, {"k": 1}):
        assert score_of(decision(score, dtype=dtype, **options)) == name, options


def test_a_score_that_cannot_be_told_is_none():
    assert score_of(decision(LOGIT.softmax(-1), k=1, renormalise=True)) is None, "all weights are one"
    assert score_of(decision(LOGIT.softmax(-1) ** 2)) is None, "neither"
    assert score_of(Decision(expert=torch.zeros(8, 2, dtype=torch.long), weight=torch.ones(8, 2))) is None, "no logits"


def test_probabilities_sum_to_one(assert_close):
    assert_close(probability(LOGIT, "softmax"), LOGIT.softmax(-1))
    assert_close(probability(LOGIT, "sigmoid").sum(-1), torch.ones(8))
    assert_close(
        probability(LOGIT, "sigmoid")[0, 1] / probability(LOGIT, "sigmoid")[0, 0],
        LOGIT[0, 1].sigmoid() / LOGIT[0, 0].sigmoid(),
    )
