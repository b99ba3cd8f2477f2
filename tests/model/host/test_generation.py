"""Generation with a host is that of transformers, token by token."""

import pytest
import torch

from workbench.model.generate import Sampling
from workbench.model.host import HostModel, generate_host


def test_greedy_tokens_are_those_of_transformers(folder, family, plain):
    model, host = plain(family), HostModel.open(folder(family))
    prompts = [[5, 40, 33, 8, 21, 9], [17, 3, 50]]
    padded = torch.tensor([prompts[0], [0, 0, 0, *prompts[1]]])
    mask = torch.tensor([[1] * 6, [0] * 3 + [1] * 3])
    out = model.generate(padded, attention_mask=mask, max_new_tokens=12, do_sample=False, eos_token_id=None)
    expected = out[:, 6:].tolist()
    assert len({tuple(row) for row in expected}) == 2
    steps = list(generate_host(host, prompts, Sampling(max_new_tokens=12, temperature=0)))
    assert torch.stack([step.token_ids for step in steps], dim=1).tolist() == expected
    assert [step.phase for step in steps] == ["prefill"] + ["decode"] * 11
    assert [step.output.sites[0].routing.num_tokens for step in steps] == [9] + [2] * 11


def test_drawn_tokens_repeat_with_the_seed_and_end_where_they_should(folder):
    host = HostModel.open(folder("olmoe"))

    def drawn(seed, ends=()):
        sampling = Sampling(max_new_tokens=12, end_ids=ends)
        return [int(step.token_ids) for step in generate_host(host, [[5, 6]], sampling, seed=seed)]

    free = drawn(1)
    assert drawn(1) == free and drawn(2) != free
    assert drawn(1, (free[4],)) == free[: free.index(free[4]) + 1]


@pytest.mark.parametrize(
    "prompts, fault", [([], "at least one token"), ([[3], []], "at least one token"), ([[61]], "0 and 60, got 61")]
)
def test_prompts_that_cannot_be_read_are_refused(folder, prompts, fault):
    with pytest.raises(ValueError, match=fault):
        generate_host(HostModel.open(folder("olmoe")), prompts, Sampling())
