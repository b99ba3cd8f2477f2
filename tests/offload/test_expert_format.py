"""What holds for every format of experts."""

from itertools import pairwise

import pytest
import torch

from workbench.core.spec import Spec
from workbench.offload.formats import FORMATS
from workbench.offload.store.blocks import parts_of

STACKED = [Spec("int4", {"levels": 3}), Spec("int8", {"levels": 2}), Spec("residual", {"levels": 5, "rank": 2})]
SPECS = [*(Spec(name) for name in FORMATS.names()), *STACKED, Spec("int4", {"group": 7}), Spec("int8", {"group": 1000})]
# relative error that the first level may leave of Gaussian weights.
BOUND = {"exact": 0.0, "int8": 0.01, "int4": 0.13, "residual": 0.7}


def expert(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Matrices, a stack of matrices and a vector, of odd sizes."""
    generator = torch.Generator().manual_seed(7)
    shapes = [(12, 40), (40, 6), (2, 5, 9), (11,)]
    return [(torch.randn(shape, generator=generator) * 0.02).to(dtype) for shape in shapes]


def empty(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.full_like(one, float("nan")) for one in tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_what_is_left_is_what_reading_misses(spec, dtype):
    form, tensors = spec.build(FORMATS), expert(dtype)
    pages, left = form.encode(tensors)
    assert len(pages) == form.levels == len(left) - 1
    rounding = {torch.float32: 1e-6, torch.bfloat16: 3e-3, torch.float64: 1e-6}[dtype] * left[0] ** 0.5
    for level in range(form.levels):
        out = empty(tensors)
        form.decode(pages[: level + 1], out)
        missed = sum((one.double() - two.double()).square().sum() for one, two in zip(out, tensors, strict=True))
        assert float(missed) ** 0.5 == pytest.approx(left[level + 1] ** 0.5, abs=rounding)
    assert (left[1] / left[0]) ** 0.5 <= BOUND[spec.name]
    assert form.is_lossless == (left[1] == 0)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_level_takes_something_away(spec):
    left = spec.build(FORMATS).encode(expert()).left
    assert all(after < before for before, after in pairwise(left))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_pages_are_of_one_shape_and_always_the_same(spec):
    form = spec.build(FORMATS)
    pages, again = form.encode(expert()).pages, spec.build(FORMATS).encode(expert()).pages
    assert len({parts_of(page) for page in pages}) == 1
    assert all(torch.equal(a, b) for one, two in zip(pages, again, strict=True) for a, b in zip(one, two, strict=True))
    first, second = empty(expert()), empty(expert())
    form.decode(pages, first)
    form.decode(pages, second)
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("spec", STACKED, ids=str)
def test_the_first_levels_are_those_of_a_shorter_stack(spec):
    shorter = Spec(spec.name, {**spec.args, "levels": 1}).build(FORMATS).encode(expert()).pages
    longer = spec.build(FORMATS).encode(expert()).pages
    assert all(map(torch.equal, shorter[0], longer[0]))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_reading_does_not_change_the_pages(spec):
    form = spec.build(FORMATS)
    pages = form.encode(expert()).pages
    before = [[part.clone() for part in page] for page in pages]
    form.decode(pages, empty(expert()))
    assert all(torch.equal(a, b) for one, two in zip(pages, before, strict=True) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("name", [name for name in FORMATS.names() if name != "exact"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_weights_that_cannot_be_held_are_refused(name, value):
    form, tensors = Spec(name).build(FORMATS), expert()
    tensors[0][3, 3] = value
    if value == 1e38 and name != "residual":
        # as large as you like, as long as its square can be added up.
        assert form.encode(tensors).left[0] == pytest.approx(1e76)
        return
    with pytest.raises(ValueError, match=r"must be finite, and within half precision for factors, to be held as"):
        form.encode(tensors)


@pytest.mark.parametrize("name", [name for name in FORMATS.names() if name != "exact"])
def test_an_expert_has_at_least_one_page(name):
    with pytest.raises(ValueError, match="levels must be at least 1, got 0"):
        Spec(name, {"levels": 0}).build(FORMATS)


def test_the_default_is_lossless_and_the_others_say_that_they_are_not():
    assert [name for name in FORMATS.names() if FORMATS.get(name).is_lossless] == ["exact"]
    with pytest.raises(LookupError, match=r"has no 'int5' \(did you mean 'int"):
        Spec("int5").build(FORMATS)
