"""The calls for single tokens on every instruction set, against float64 and against the layer for many tokens."""

import multiprocessing
import platform

import pytest
import torch
import torch.nn.functional as F
from workbench_kernels import ChoiceGate, plan_routing
from workbench_kernels.cpu import engine, library, tokens
from workbench_kernels.token_choice import SCORES
from workbench_kernels.token_reference import token_choice_ref

LIMITS = {torch.float32: 1e-6, torch.bfloat16: 3.5e-3, torch.float16: 7.5e-4}


def normal(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.randn(shape, generator=generator) * shape[-1] ** -0.5).to(dtype)


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("size", [(64, 40, 6, 3), (33, 13, 3, 2), (256, 512, 16, 2)])
def test_experts_of_one_token_are_those_of_the_layer_bit_for_bit(tier, size, dtype):
    width, hidden, experts, slots = size
    gate_up, down = normal(experts, 2 * hidden, width, dtype=dtype), normal(experts, width, hidden, dtype=dtype)
    x, weight = normal(1, width, dtype=dtype), torch.rand(1, slots)
    for chosen in ([0, 1, 2], [2, 2, 1], [-1, 1, experts], [experts + 3, -7, -1]):
        expert = torch.tensor([chosen[:slots]])
        layer, _ = engine.forward(
            x, weight, gate_up, down, plan_routing(expert, experts), activation="silu", keeps_hidden=False
        )
        assert torch.equal(tokens.experts(x, weight, gate_up, down, expert), layer)


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("size", [(1, 256, 100), (4, 33, 17)])
def test_a_matrix_times_tokens(tier, size, dtype, distance):
    x, weight = normal(size[0], size[1], dtype=dtype), normal(size[2], size[1], dtype=dtype)
    assert distance(tokens.linear(x, weight), F.linear(x.double(), weight.double())) <= LIMITS[dtype]


@pytest.mark.parametrize("score", SCORES)
def test_a_choice(tier, score):
    x, gate = normal(1, 50), ChoiceGate(4 * normal(7, 50), 3, score)
    bias = torch.tensor([0.0, 0.5, -torch.inf, 0, 0, 1, 0])
    found = tokens.ready_choice(gate.place, x.dtype)(x, bias)
    wanted = token_choice_ref(x.double(), gate._replace(weight=gate.weight.double()), bias=bias)
    assert torch.equal(found.expert, wanted.expert)
    torch.testing.assert_close(found.weight.double(), wanted.weight, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(found.prob.double(), wanted.prob, rtol=2e-6, atol=2e-6)


def test_without_memory_it_says_so(monkeypatch):
    found = library.kernels()
    functions = dict.fromkeys(found.functions, lambda *call: 0)
    monkeypatch.setattr(tokens, "kernels", lambda: found._replace(functions=functions))
    with pytest.raises(MemoryError, match="no scratch memory for a token"):
        tokens.linear(normal(1, 4), normal(3, 4))


def product(weight, place):
    torch.set_num_threads(2)
    place.put(tokens.linear(normal(1, 512), weight).tolist())


@pytest.mark.skipif(platform.system() != "Linux", reason="other systems do not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_a_team_of_its_own():
    weight, before = normal(3000, 512), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        wanted = tokens.linear(normal(1, 512), weight).tolist()
    finally:
        torch.set_num_threads(before)
    context = multiprocessing.get_context("fork")
    place = context.Queue()
    child = context.Process(target=product, args=(weight, place))
    child.start()
    assert place.get(timeout=60) == wanted
    child.join(timeout=60)
    assert child.exitcode == 0
