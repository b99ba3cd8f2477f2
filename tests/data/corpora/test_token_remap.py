import math
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
import torch

from workbench.core.records import Batch
from workbench.data import Batches, ByteTokenizer
from workbench.data.corpora.token_remap import TokenRemap


def test_the_right_expert_is_the_domain_and_padding_has_none():
    domain = torch.tensor([[2, 2, 2]])
    batch = Batch(token_ids=torch.tensor([[65, 66, 256]]), domain=domain)
    assert TokenRemap().right_expert(batch).tolist() == [[2, 2, -1]]


def test_a_batch_without_domains_is_refused():
    with pytest.raises(ValueError, match="expected a batch with domain labels, got none"):
        TokenRemap().right_expert(Batch(token_ids=torch.tensor([[65]])))


def test_every_domain_is_the_same_chain_in_another_alphabet():
    task = TokenRemap(num_domains=2, documents=400)
    chains = []
    for domain, letters in zip(task.domains, task.alphabets, strict=True):
        state = {letter: number for number, letter in enumerate(letters)}
        chain = np.zeros((64, 64))
        for text in task.documents("train", domain):
            for one, two in pairwise(text):
                chain[state[one], state[two]] += 1
        assert ((chain > 0).sum(1) == 4).all()
        chains.append(chain / chain.sum(1, keepdims=True))
    assert abs(chains[0] - chains[1]).max() < 0.06
    assert abs(chains[0] - chains[1][np.arange(64) - 1]).max() > 0.5


def test_the_alphabets_differ():
    task = TokenRemap(num_domains=3, documents=50)
    pairs = [{t[i : i + 2] for t in task.documents("train", d) for i in range(510)} for d in task.domains]
    assert all(len(one & two) < 0.3 * len(one) for n, one in enumerate(pairs) for two in pairs[:n])


def test_the_entropy_is_what_the_true_chain_pays():
    task = TokenRemap(num_domains=1, documents=600)
    after = defaultdict(Counter)
    for text in task.documents("train", "alphabet_0"):
        for one, two in pairwise(text):
            after[one][two] += 1
    total = sum(counts.total() for counts in after.values())
    paid = -sum(n * math.log2(n / counts.total()) for counts in after.values() for n in counts.values()) / total
    assert abs(paid - task.entropy_bits) < 0.01


def test_batches_of_the_task_carry_right_experts(tmp_path):
    task = TokenRemap(num_domains=3, documents=10)
    batches = Batches(task, ByteTokenizer(), batch_size=8, sequence_length=32, seed=0, cache_folder=tmp_path)
    batch = batches.batch(0)
    right = task.right_expert(batch)
    assert torch.equal(right[batch.token_ids < 256], batch.domain[batch.token_ids < 256])
    assert set(right.unique().tolist()) <= {-1, 0, 1, 2}
