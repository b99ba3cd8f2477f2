"""A running model knows no future."""

import pytest

from workbench.core import Spec
from workbench.offload.policies.lfu import LFU
from workbench.offload.policy import CacheShape
from workbench.offload.prefetch.markov import Markov
from workbench.offload.running import running_policy, running_prefetcher

SHAPE = CacheShape(num_layers=2, num_experts=4, capacity=3, top_k=1)


def test_who_is_named_is_made_for_this_model():
    policy = running_policy(Spec("lfu"), SHAPE)
    assert type(policy) is LFU and policy.shape == SHAPE
    assert type(running_prefetcher(Spec("markov"), SHAPE)) is Markov


@pytest.mark.parametrize(
    ("make", "name", "others"), [(running_policy, "min", "lru"), (running_prefetcher, "oracle", "markov")]
)
def test_an_oracle_is_refused_and_others_are_named(make, name, others):
    with pytest.raises(ValueError, match=rf"{name} looks into the future, .*or take one of .*\b{others}\b") as error:
        make(Spec(name), SHAPE)
    assert f" {name}," not in str(error.value).partition("one of")[2]


def test_a_typing_error_is_answered():
    with pytest.raises(LookupError, match=r"has no 'lruu' \(did you mean 'lru'\?\)"):
        running_policy(Spec("lruu"), SHAPE)
    with pytest.raises(ValueError, match="lru has no argument 'size'"):
        running_policy(Spec("lru", {"size": 3}), SHAPE)
