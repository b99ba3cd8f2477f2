"""A step of decoding: the parts one after the other, bit for bit, and the reference in float64."""

import threading

import pytest
import torch
from workbench_kernels import (
    AttentionWeights,
    BlockWeights,
    ChoiceGate,
    TokenAttention,
    TokenStep,
    backend_of,
    rms_norm,
    token_choice,
    token_linear,
    token_mlp,
)
from workbench_kernels.token_reference import token_step_ref

pytestmark = pytest.mark.skipif(backend_of("cpu").name != "cpp", reason="no C++ kernels here")
EPSILON, WORDS, LENGTH, ROOM = 1e-5, 50, 9, 16
LIMITS = {torch.float32: 4e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def model(dtype=torch.float32, *, layers=2, width=64, heads=(4, 2), hidden=24, experts=5, wide_gains=True, **gate):
    """Weights of every block, of the ends; keys, values and rotation."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape):
        return (torch.randn(*shape, generator=generator) * shape[-1] ** -0.5).to(dtype)

    def gain(size):
        return (torch.rand(size, generator=generator) + 0.5).to(torch.float32 if wide_gains else dtype)

    channels, queries, keys = 16, heads[0] * 16, heads[1] * 16
    blocks = []
    for _ in range(layers):
        matrices = [normal(*shape) for shape in ((queries, width), (keys, width), (keys, width), (width, queries))]
        attention = AttentionWeights(gain(width), *matrices, query_gain=gain(channels), key_gain=gain(channels))
        choice = ChoiceGate(normal(experts, width), gate.get("top_k", 2), gate.get("score", "softmax"))
        stacks = normal(experts, 2 * hidden, width), normal(experts, width, hidden)
        blocks.append(BlockWeights(attention, gain(width), choice, *stacks))
    ends = {"embedding": normal(WORDS, width), "gain": gain(width), "head": normal(WORDS, width)}
    caches = [tuple(normal(2, 1, ROOM, heads[1], channels)) for _ in range(layers)]
    angle = torch.rand(1, channels // 2, generator=generator).repeat(1, 2)
    return blocks, ends, caches, {"cosine": angle.cos(), "sine": angle.sin(), "length": LENGTH}


def ready(blocks, ends):
    return TokenStep(blocks, **ends, channels=16, epsilon=EPSILON)


def copied(caches):
    return [(keys.clone(), values.clone()) for keys, values in caches]


def run(blocks, ends, caches, options, token_id=7):
    with torch.no_grad():
        logits, choices = ready(blocks, ends).start(caches)(token_id, **options)
    return logits[0], choices.by_block()


def by_parts(blocks, ends, caches, options, token_id=7):
    stream, choices = ends["embedding"][token_id : token_id + 1], []
    with torch.no_grad():
        for block, (keys, values) in zip(blocks, caches, strict=True):
            attention = TokenAttention(block.attention, channels=16, epsilon=EPSILON)
            stream, _ = attention(stream, keys, values, **options)
            x = rms_norm(stream, block.gain, EPSILON)
            choices.append(token_choice(x, block.gate))
            stream = stream + token_mlp(x, choices[-1].weight, block.gate_up, block.down, expert=choices[-1].expert)
        return token_linear(rms_norm(stream, ends["gain"], EPSILON), ends["head"]), choices


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize(
    "shape",
    [{}, {"wide_gains": False}, {"width": 50, "hidden": 13, "experts": 3}, {"score": "sigmoid", "top_k": 4}],
    ids=["plain", "narrow_gains", "unaligned", "sigmoid"],
)
def test_it_is_its_parts_bit_for_bit(shape, dtype):
    blocks, ends, caches, options = model(dtype, **shape)
    other = copied(caches)
    logits, choices = run(blocks, ends, caches, options)
    wanted, others = by_parts(blocks, ends, other, options)
    assert logits.dtype == dtype
    assert torch.equal(logits, wanted)
    for own, theirs in zip(choices, others, strict=True):
        assert all(map(torch.equal, own, theirs))
    for own, theirs in zip(caches, other, strict=True):
        assert all(map(torch.equal, own, theirs))


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_it_is_its_reference(dtype, distance):
    blocks, ends, caches, options = model(dtype)
    exact = [
        BlockWeights(
            AttentionWeights(*(None if one is None else one.double() for one in block.attention)),
            block.gain.double(),
            block.gate._replace(weight=block.gate.weight.double()),
            block.gate_up.double(),
            block.down.double(),
        )
        for block in blocks
    ]
    wide = [tuple(one.double() for one in pair) for pair in caches]
    sides = {name: one.double() for name, one in ends.items()}
    turn = {name: one if name == "length" else one.double() for name, one in options.items()}
    logits, choices = run(blocks, ends, caches, options)
    wanted, others = token_step_ref(7, exact, wide, **sides, **turn, epsilon=EPSILON)
    assert distance(logits, wanted) <= LIMITS[dtype]
    assert [one.expert.tolist() for one in choices] == [one.expert.tolist() for one in others]


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_change_no_bit(threads):
    blocks, ends, caches, options = model(width=256, hidden=200)
    wanted, _ = run(blocks, ends, copied(caches), options)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for _ in range(50):
            assert torch.equal(run(blocks, ends, copied(caches), options)[0], wanted)
    finally:
        torch.set_num_threads(before)


def test_two_callers_at_once_do_not_meet():
    blocks, ends, caches, options = model(width=256, hidden=200)
    wanted = [run(blocks, ends, copied(caches), options, word)[0] for word in range(4)]
    step, found = ready(blocks, ends), {}

    def write(word):
        started = step.start(copied(caches))
        with torch.no_grad():
            found[word] = [started(word, **options)[0][0] for _ in range(100)]

    writers = [threading.Thread(target=write, args=(word,)) for word in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    for word, logits in enumerate(wanted):
        assert all(torch.equal(one, logits) for one in found[word])


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_experts_that_are_brought_give_the_same_bits_wherever_they_are_put(dtype):
    blocks, ends, caches, options = model(dtype, layers=3)
    wanted, _ = run(blocks, ends, copied(caches), options)
    places = [block.down.new_full((4, *one.shape[1:]), torch.nan) for block in blocks[:1] for one in block[3:5]]
    asked = []

    def bring(block, experts, x, meanwhile):
        asked.append((block, experts, x.clone()))
        # two of four places, in turn: what lies in the others must not matter.
        chosen = [(block + place) % 4 for place in range(len(experts))]
        for stack, place_of in zip(blocks[block][3:5], places, strict=True):
            place_of.fill_(torch.nan)
            place_of[chosen] = stack[experts]
        return chosen

    brought = [one._replace(gate_up=places[0], down=places[1], is_brought=True) for one in blocks]
    logits, choices = run(brought, ends, caches, {**options, "bring": bring})
    assert torch.equal(logits, wanted)
    assert [(block, experts) for block, experts, _ in asked] == [
        (block, choice.expert[0].tolist()) for block, choice in enumerate(choices)
    ]
    with torch.no_grad():
        for (_, _, x), block, choice in zip(asked, blocks, choices, strict=True):
            assert torch.equal(token_choice(x, block.gate).expert, choice.expert)


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_experts_that_are_there_compute_while_others_are_on_their_way(dtype):
    blocks, ends, caches, options = model(dtype, layers=3)
    wanted, _ = run(blocks, ends, copied(caches), options)
    pools = [[stack.clone() for stack in one[3:5]] for one in blocks]

    def bring(block, experts, x, meanwhile):
        early, late = (experts[:1], experts[1:]) if block % 2 else (experts[1:], experts[:1])
        for stack in pools[block]:
            stack[late] = torch.nan
        meanwhile([-1 if expert in late else expert for expert in experts])
        for stack, own in zip(pools[block], blocks[block][3:5], strict=True):
            # who has computed need not stay.
            stack[early], stack[late] = torch.nan, own[late]
        return experts

    brought = [
        one._replace(gate_up=gate_up, down=down, is_brought=True)
        for one, (gate_up, down) in zip(blocks, pools, strict=True)
    ]
    logits, _ = run(brought, ends, caches, {**options, "bring": bring})
    assert torch.equal(logits, wanted)


def test_an_expert_that_cannot_be_brought_ends_the_step_and_the_next_one_works():
    blocks, ends, caches, options = model()
    brought = [one._replace(is_brought=True) for one in blocks]
    started = ready(brought, ends).start(caches)

    def fail(block, experts, x, meanwhile):
        raise OSError("the disk is gone")

    with torch.no_grad():
        wanted, _ = ready(blocks, ends).start(copied(caches))(7, **options)
        with pytest.raises(OSError, match="the disk is gone"):
            started(7, **options, bring=fail)
        logits, _ = started(7, **options, bring=lambda block, experts, x, meanwhile: experts)
    assert torch.equal(logits, wanted)


def test_somebody_brings_experts_where_they_are_brought_and_only_there():
    blocks, ends, caches, options = model()
    with pytest.raises(ValueError, match="expected nobody to bring experts"):
        run(blocks, ends, caches, {**options, "bring": lambda block, experts, x, meanwhile: experts})
    brought = [one._replace(is_brought=True) for one in blocks]
    with pytest.raises(ValueError, match="expected somebody to bring experts, got bring=None"):
        run(brought, ends, caches, options)
    with pytest.raises(ValueError, match="block 1 must have"):
        ready([brought[0], blocks[1]], ends)


def test_what_a_call_gave_stays_when_the_next_is_made():
    blocks, ends, caches, options = model()
    started = ready(blocks, ends).start(caches)
    with torch.no_grad():
        logits, choices = started(7, **options)
        before = logits.clone(), [one.logit.clone() for one in choices.by_block()]
        started(8, **options)
    assert torch.equal(logits, before[0])
    assert all(map(torch.equal, [one.logit for one in choices.by_block()], before[1]))


def test_weights_that_learn_in_place_are_seen():
    blocks, ends, caches, options = model()
    started = ready(blocks, ends).start(caches)
    with torch.no_grad():
        before = started(7, **options)[0]
        blocks[1].down.mul_(3)
        after = started(7, **options)[0]
    assert not torch.equal(after, before)
    assert torch.equal(after[0], run(blocks, ends, caches, options)[0])


def test_it_says_where_it_cannot_work():
    blocks, ends, caches, options = model()
    step = ready(blocks, ends)
    assert not step.can_run()
    with torch.no_grad():
        assert step.can_run()
        with torch.autocast("cpu"):
            assert not step.can_run()
    call = type(step.start(caches)).__call__.__wrapped__
    with pytest.raises(ValueError, match=r"there are 50 words and 16 columns.* got word 50"):
        call(step.start(caches), 50, **options)
    with pytest.raises(ValueError, match="length 17"):
        call(step.start(caches), 7, **{**options, "length": 17})
    start = TokenStep.start.__wrapped__
    with pytest.raises(ValueError, match="2 blocks need contiguous keys and values of one sequence"):
        start(step, caches[:1])
    with pytest.raises(ValueError, match="2 blocks need contiguous keys and values of one sequence"):
        start(step, [caches[0], tuple(one.bfloat16() for one in caches[1])])


def test_weights_that_do_not_fit_are_refused():
    blocks, ends, _, _ = model()
    with pytest.raises(ValueError, match="a step needs at least one block"):
        ready([], ends)
    with pytest.raises(ValueError, match="block 1 must have 5 experts, 2 choices and width 64"):
        ready([blocks[0], blocks[1]._replace(gate=blocks[1].gate._replace(top_k=3))], ends)
    exact = [model(torch.float64)[0][0]]
    step = ready(exact, {name: one.double() for name, one in ends.items()})
    with torch.no_grad():
        assert not step.can_run()
    with pytest.raises(ValueError, match="ask can_run first"):
        step.start([])
