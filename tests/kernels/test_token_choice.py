"""The choice of one token against its reference in float64: every score, dtype, bias and tie."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from workbench_kernels import ChoiceGate, backend_of, token_choice
from workbench_kernels.token_choice import SCORES, can_choose
from workbench_kernels.token_reference import token_choice_ref

pytestmark = pytest.mark.skipif(backend_of("cpu").name != "cpp", reason="no C++ kernels here")


def drawn(width, experts, top_k, dtype=torch.float32, *, seed=0, gate_dtype=None, **settings):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, width, generator=generator).to(dtype)
    weight = (torch.randn(experts, width, generator=generator) * 2 * width**-0.5).to(gate_dtype or dtype)
    return x, ChoiceGate(weight, top_k, **settings)


def check(x, gate, bias=None):
    with torch.no_grad():
        found = token_choice(x, gate, bias=bias)
    exact = gate._replace(weight=gate.weight.double())
    wanted = token_choice_ref(x.double(), exact, bias=bias)
    assert torch.equal(found.expert, wanted.expert)
    for name in ("weight", "prob", "logit", "rank"):
        own, other = found._asdict()[name], wanted._asdict()[name]
        assert own.dtype == torch.float32
        torch.testing.assert_close(own.double(), other, rtol=2e-6, atol=2e-6)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("size", [(256, 16, 2), (33, 7, 7), (64, 100, 8), (5, 1, 1)])
def test_it_is_its_reference(size, score, dtype):
    for seed in range(5):
        check(*drawn(*size, dtype, seed=seed, score=score, renormalise=seed % 2 == 0, scale=1.0 + seed))


def test_a_wide_gate_goes_with_narrow_tokens():
    check(*drawn(64, 8, 2, torch.bfloat16, gate_dtype=torch.float32))


@pytest.mark.parametrize("score", SCORES)
def test_biases_change_the_choice_and_never_the_weight(score):
    x, gate = drawn(64, 8, 2, score=score, renormalise=False)
    plain = check(x, gate)
    last = int(plain.logit.argmin())
    bias = torch.zeros(8)
    bias[last] = 100.0
    steered = check(x, gate, bias)
    assert int(steered.expert[0, 0]) == last
    own = check(x, gate._replace(selection_bias=bias))
    assert torch.equal(own.expert, steered.expert)
    assert torch.equal(own.weight, steered.weight)
    assert torch.equal(check(x, gate, torch.zeros(8)).weight, plain.weight)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("banned", [[0], [1, 2, 3, 5], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]])
def test_bans_are_kept(score, banned):
    bias = torch.zeros(6)
    bias[banned] = -torch.inf
    found = check(*drawn(32, 6, 3, score=score), bias)
    for expert, weight in zip(found.expert[0].tolist(), found.weight[0].tolist(), strict=True):
        assert (weight == 0) == (expert in banned)


def test_equal_scores_choose_the_lower_index_and_no_expert_twice():
    gate = ChoiceGate(torch.ones(9, 4), 9)
    assert check(torch.ones(1, 4), gate).expert.tolist() == [list(range(9))]


def test_a_broken_token_still_chooses_experts_that_there_are():
    with torch.no_grad():
        found = token_choice(torch.full((1, 4), torch.nan), ChoiceGate(torch.ones(5, 4), 3))
    assert found.expert.tolist() == [[0, 1, 2]]
    assert found.weight.isnan().all()


def test_no_choice_overwrites_another_one_in_any_thread():
    _, gate = drawn(24, 6, 2)
    tokens = torch.randn(400, 24)

    def choose(rows):
        with torch.no_grad():
            return [token_choice(row[None], gate) for row in rows.unbind()]

    with ThreadPoolExecutor(4) as threads:
        found = [one for some in threads.map(choose, tokens.split(100)) for one in some]
    wanted = token_choice_ref(tokens.double(), gate._replace(weight=gate.weight.double()))
    assert torch.equal(torch.cat([one.expert for one in found]), wanted.expert)
    for name in ("weight", "prob", "logit", "rank"):
        own = torch.cat([one._asdict()[name] for one in found]).double()
        torch.testing.assert_close(own, wanted._asdict()[name], rtol=2e-6, atol=2e-6)


def test_a_gate_that_learned_in_place_or_moved_is_seen():
    x, gate = drawn(16, 4, 2)
    check(x, gate)
    gate.weight.mul_(-1)
    check(x, gate)
    gate.weight.data = gate.weight.flip(0)
    check(x, gate)
    check(x, gate._replace(top_k=3, scale=2.0))


def test_results_are_plain_tensors_wherever_it_was_called():
    x, gate = drawn(16, 4, 2)
    with torch.inference_mode(), torch.device("meta"):
        inside = [token_choice(x, gate) for _ in range(20)]
    found = (*inside, check(x, gate))
    for one in found:
        assert {part.device.type for part in one} == {"cpu"}
        (torch.ones(1, requires_grad=True) * one.weight).sum().backward()


def test_it_says_where_it_cannot_work():
    x, gate = drawn(16, 4, 2)
    assert not can_choose(x, gate)
    with pytest.raises(ValueError, match="ask can_choose first"):
        token_choice(x, gate)
    with torch.no_grad():
        assert can_choose(x, gate)
        assert not can_choose(x.repeat(2, 1), gate)
        assert not can_choose(x.double(), gate._replace(weight=gate.weight.double()))
        assert not can_choose(x, gate._replace(weight=gate.weight.half()))
        with torch.autocast("cpu"):
            assert not can_choose(x, gate)
        with pytest.raises(ValueError, match=r"takes one token, 1..4 choices .* top_k 5"):
            token_choice(x, gate._replace(top_k=5))
        with pytest.raises(ValueError, match="score must be one of softmax, softmax_chosen, sigmoid, got 'tanh'"):
            token_choice(x, gate._replace(score="tanh"))
