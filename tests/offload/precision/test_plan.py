"""Pages of experts."""

import numpy as np
import pytest

from workbench.core.records import ExpertKey
from workbench.core.spec import Spec
from workbench.offload.config import OffloadConfig
from workbench.offload.precision.lossy import PrecisionLoss
from workbench.offload.precision.plan import Precision, format_of
from workbench.offload.store.blocks import BlockShape, Part
from workbench.offload.store.encoding import EXACT, Encoding

LEFT = np.array([[9.0, 3.0, 1.0], [9.0, 2.0, 1.0], [9.0, 1.5, 1.0], [9.0, 4.0, 1.0], [9.0, 2.0, 1.9], [9.0, 2.0, 1.9]])
STACK = Encoding(format=Spec("int4", {"levels": 2}), levels=2, dense=BlockShape((Part((2, 3), "float32"),)), left=LEFT)
PLAIN = Encoding(format=EXACT, levels=1, dense=STACK.dense, left=np.zeros((6, 2)))


def made(encoding=STACK, **config) -> Precision:
    return Precision(encoding, OffloadConfig(**config), num_layers=2, num_experts=3)


def test_pages_are_numbered_expert_by_expert():
    precision = made(mean_levels=1.5)
    assert precision.pages_of == [2, 2, 1, 2, 1, 1]
    assert [list(precision.pages(layer, expert)) for layer in (0, 1) for expert in (0, 1, 2)] == [
        [0, 1],
        [2, 3],
        [4],
        [6, 7],
        [8],
        [10],
    ]
    assert [precision.key(page) for page in (0, 1, 4, 7, 10)] == [
        ExpertKey(0, 0),
        ExpertKey(0, 0),
        ExpertKey(0, 2),
        ExpertKey(1, 0),
        ExpertKey(1, 2),
    ]
    assert [precision.most_pages(experts) for experts in (1, 2, 3)] == [2, 4, 5]


def test_an_expert_is_where_the_slowest_of_its_pages_is():
    tier = np.array([0, 2, 1, 1, 0, 2, 0, 0, 2, 0, 1, 0], np.int8)
    assert made(mean_levels=1.5).slowest(tier).tolist() == [[2, 1, 0], [0, 2, 1]]
    assert made().slowest(tier).tolist() == [[2, 1, 2], [0, 2, 1]]
    assert made(PLAIN).slowest(tier[:6]).tolist() == [[0, 2, 1], [1, 0, 2]]


def test_a_guess_of_an_expert_is_one_of_its_pages():
    guesses = [(4, 0.5), (3, 0.25)]
    assert made(mean_levels=1.5).guesses(guesses) == [(8, 0.5), (6, 0.25), (7, 0.25)]
    assert made(PLAIN).guesses(guesses) == guesses


def test_it_says_what_it_costs():
    assert str(made(PLAIN)) == "lossless: outputs are those of the resident model, bit for bit"
    assert made(PLAIN).is_lossless and not made(PLAIN, skip=0.1).is_lossless and not made().is_lossless
    assert str(made(PLAIN, skip=0.1)) == "exact, skipping below 0.1: lossy, not measured yet"
    precision = made(mean_levels=1.5)
    assert str(precision) == "int4:levels=2 at 1.50 of 2 levels: lossy, not measured yet"
    precision.loss = PrecisionLoss(kl=0.0021, loss_change=0.0008, exact_loss=3.0, same_tokens=0.99, tokens=4096)
    assert str(precision).endswith("lossy, KL 0.0021 nats a token, loss +0.0008 on 4,096 tokens")


def test_use_must_be_of_these_experts():
    with pytest.raises(ValueError, match="usage needs one number of 0 or more for each of 6 experts"):
        made(mean_levels=1.5, usage=(1, 2))


@pytest.mark.parametrize("mean", [0.5, 2.5])
def test_levels_that_a_format_does_not_have_are_refused(mean):
    config = OffloadConfig(format=Spec("int4", {"levels": 2}), mean_levels=mean)
    with pytest.raises(ValueError, match=rf"mean_levels must be between 1 and 2, got {mean}; int4:levels=2 writes 2"):
        format_of(config)


def test_a_calibration_text_needs_a_format_that_heeds_it():
    told = Spec("residual", {"levels": 2})
    assert format_of(OffloadConfig(format=told, calibration=(1, 2))).takes_scales
    with pytest.raises(ValueError, match=r"int8 is the same for every calibration text; .* or take one of: residual$"):
        format_of(OffloadConfig(format=Spec("int8"), calibration=(1, 2)))
    known = Encoding(format=told, levels=2, dense=STACK.dense, left=LEFT, calibration="ab", tokens=(3, 0, 9, 4, 4, 4))
    assert str(made(known)) == "residual:levels=2 calibrated on text ab (0 to 9 tokens): lossy, not measured yet"


def test_a_format_that_does_not_exist_is_refused():
    with pytest.raises(LookupError, match=r"has no 'int3'"):
        format_of(OffloadConfig(format=Spec("int3")))
    with pytest.raises(ValueError, match="int8 has no argument 'bits'"):
        format_of(OffloadConfig(format=Spec("int8", {"bits": 3})))
    assert format_of(OffloadConfig()).is_lossless
