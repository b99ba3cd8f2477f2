import math
from collections import defaultdict
from itertools import pairwise

import pytest
import torch

from workbench.core.records import Batch
from workbench.data.corpora.class_arithmetic import ClassArithmetic


def test_the_right_expert_is_the_class_of_the_character():
    codes = [*b"!1Aa ?Oo", 256, 0x50, 0x70, 0x10]
    batch = Batch(token_ids=torch.tensor([codes]))
    assert ClassArithmetic().right_expert(batch).tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, -1, -1, -1, -1]]


def test_the_class_and_value_of_a_symbol_decide_the_next_value():
    following = defaultdict(set)
    for text in ClassArithmetic(documents=50).documents("train", "class_arithmetic"):
        for one, two in pairwise(text):
            following[one].add(ord(two) & 0x0F)
    assert len(following) == 64
    assert all(len(values) == 1 for values in following.values())


def test_each_class_has_a_rule_of_its_own_that_loses_no_value():
    rules = defaultdict(dict)
    for text in ClassArithmetic(documents=50).documents("train", "class_arithmetic"):
        for one, two in pairwise(text):
            rules[ord(one) & 0xF0][ord(one) & 0x0F] = ord(two) & 0x0F
    assert all(sorted(rule.values()) == list(range(16)) for rule in rules.values())
    assert len({tuple(sorted(rule.items())) for rule in rules.values()}) == 4


@pytest.mark.parametrize("seed", range(3))
def test_the_next_class_is_a_fair_draw_of_four(seed):
    task = ClassArithmetic(documents=50, seed=seed)
    pairs = defaultdict(int)
    for text in task.documents("train", "class_arithmetic"):
        for one, two in pairwise(text):
            pairs[ord(one) & 0xF0, ord(two) & 0xF0] += 1
    total = sum(pairs.values())
    entropy = -sum(n / total * math.log2(n / total) for n in pairs.values())
    assert len(pairs) == 16
    assert entropy == pytest.approx(2 * task.entropy_bits, abs=0.01)
