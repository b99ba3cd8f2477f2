"""A step as one call gives the bits of its calls one by one, on every instruction set."""

import pytest
import torch
from workbench_kernels import AttentionWeights, BlockWeights, ChoiceGate
from workbench_kernels.cpu import engine, step, tokens

EPSILON = 1e-5


def block(width, experts, hidden, dtype):
    def normal(*shape):
        return (torch.randn(shape) * shape[-1] ** -0.5).to(dtype)

    matrices = [normal(*shape) for shape in ((32, width), (16, width), (16, width), (width, 32))]
    gate = ChoiceGate(normal(experts, width), 2)
    attention = AttentionWeights(torch.rand(width) + 0.5, *matrices)
    stacks = normal(experts, 2 * hidden, width), normal(experts, width, hidden)
    return BlockWeights(attention, torch.rand(width) + 0.5, gate, *stacks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [64, 50])
def test_one_call_is_many(tier, width, dtype):
    torch.manual_seed(0)
    blocks = [block(width, 5, 24, dtype) for _ in range(2)]
    ready = [tokens.ready_attention(one.attention, 16, EPSILON, 0.0) for one in blocks]
    embedding, head, gain = torch.randn(9, width).to(dtype), torch.randn(11, width).to(dtype), torch.rand(width) + 0.5
    caches = [tuple(torch.randn(2, 1, 8, 1, 16).to(dtype)) for _ in blocks]
    others = [tuple(one.clone() for one in pair) for pair in caches]
    turn = torch.rand(1, 16), torch.rand(1, 16)
    whole = step.Step(blocks, ready, caches, embedding=embedding, gain=gain, head=head, epsilon=EPSILON)
    whole.run(3, *turn, 5)
    stream = embedding[3:4]
    for one, call, (keys, values) in zip(blocks, ready, others, strict=True):
        stream, _ = tokens.token_attention(call, stream, keys, values, turn, 5, None)
        x, _ = engine.rms_norm(stream, one.gain, EPSILON, keeps_scale=False)
        choice = tokens.ready_choice(one.gate.place, dtype)(x, None)
        stream = stream + tokens.experts(x, choice.weight, one.gate_up, one.down, choice.expert)
    x, _ = engine.rms_norm(stream, gain, EPSILON, keeps_scale=False)
    assert torch.equal(whole.logits[0], tokens.linear(x, head))
    for own, other in zip(caches, others, strict=True):
        assert all(map(torch.equal, own, other))
    assert whole.words == 9
    assert whole.sizes == (2, 5, 2)
