"""The references of single tokens, held against cases worked by hand and PyTorch's own softmax."""

import torch
from workbench_kernels import AttentionWeights, BlockWeights, ChoiceGate
from workbench_kernels.token_reference import token_choice_ref, token_step_ref


def gate(rows, top_k, **settings):
    return ChoiceGate(torch.tensor(rows, dtype=torch.float64), top_k, **settings)


def test_a_choice_worked_by_hand():
    one = torch.ones(1, 1, dtype=torch.float64)
    logit = torch.tensor([1.0, 3.0, 2.0, 3.0], dtype=torch.float64)
    rows = logit.unsqueeze(1).tolist()
    found = token_choice_ref(one, gate(rows, 3))
    assert found.expert.tolist() == [[1, 3, 2]]
    share = logit.exp() / logit.exp().sum()
    assert torch.allclose(found.prob[0], share)
    assert torch.allclose(found.weight[0], share[[1, 3, 2]] / share[[1, 3, 2]].sum())
    assert torch.allclose(found.weight, token_choice_ref(one, gate(rows, 3, score="softmax_chosen")).weight)
    raw = token_choice_ref(one, gate(rows, 2, score="sigmoid", renormalise=False, scale=2.5))
    assert torch.allclose(raw.weight[0], 2.5 / (1 + torch.tensor([-3.0, -3.0], dtype=torch.float64).exp()))


def test_a_banned_expert_weighs_nothing_and_is_chosen_last():
    one = torch.ones(1, 1, dtype=torch.float64)
    bias = torch.tensor([0.0, -torch.inf, 0.5, -torch.inf], dtype=torch.float64)
    for score in ("softmax", "softmax_chosen", "sigmoid"):
        found = token_choice_ref(one, gate([[1.0], [3.0], [2.0], [3.0]], 3, score=score), bias=bias)
        assert found.expert.tolist() == [[2, 0, 1]]
        assert found.weight[0, 2] == 0
        assert torch.allclose(found.weight.sum(), torch.ones(1, dtype=torch.float64))
        nobody = token_choice_ref(one, gate([[1.0], [3.0]], 2, score=score), bias=torch.full((2,), -torch.inf))
        assert nobody.weight.tolist() == [[0, 0]]


def test_a_step_without_attention_and_experts_is_the_head_of_the_normed_word():
    width, zero = 4, torch.zeros(4, 4, dtype=torch.float64)
    ones = torch.ones(width, dtype=torch.float64)
    attention = AttentionWeights(ones, zero, zero, zero, zero)
    experts = torch.zeros(2, 6, width, dtype=torch.float64), torch.zeros(2, width, 3, dtype=torch.float64)
    block = BlockWeights(attention, ones, gate([[0.0] * width, [1.0] * width], 1), *experts)
    embedding = torch.arange(1.0, 17, dtype=torch.float64).view(4, width)
    caches = [tuple(torch.zeros(2, 1, 2, 1, width, dtype=torch.float64))]
    turn = {"cosine": ones.unsqueeze(0), "sine": 0 * ones.unsqueeze(0)}
    options = {"embedding": embedding, "gain": 2 * ones, "head": torch.eye(width, dtype=torch.float64)}
    logits, choices = token_step_ref(1, [block], caches, **options, **turn, length=1, epsilon=0.0)
    assert torch.allclose(logits[0], 2 * embedding[1] / embedding[1].square().mean().sqrt())
    assert [choice.expert.tolist() for choice in choices] == [[[1]]]
