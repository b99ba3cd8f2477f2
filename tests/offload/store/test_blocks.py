"""An expert as bytes: its tensors one after the other, padded to the alignment."""

import json

import pytest
import torch

from workbench.offload.store.blocks import ALIGNMENT, BlockShape, Part, parts_of


@pytest.fixture
def tensors() -> list[torch.Tensor]:
    return [torch.arange(6.0).view(2, 3), torch.tensor([1.5, -2.0], dtype=torch.bfloat16)]


def test_a_block_is_its_tensors_and_zeros(tensors):
    shape = parts_of(tensors)
    block = shape.bytes_of(tensors)
    assert (shape.num_bytes, shape.stride, len(block)) == (28, ALIGNMENT, ALIGNMENT)
    assert torch.frombuffer(block, dtype=torch.float32, count=6).tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.frombuffer(block, dtype=torch.bfloat16, count=2, offset=24).tolist() == [1.5, -2.0]
    assert not any(block[28:])


def test_a_transposed_tensor_is_written_as_it_reads():
    tensor = torch.arange(6.0).view(2, 3).t()
    block = parts_of([tensor]).bytes_of([tensor])
    assert torch.frombuffer(block, dtype=torch.float32, count=6).tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    ("floats", "stride", "is_aligned"), [(1024, 4096, True), (1025, 8192, False), (2048, 8192, True), (1, 4096, False)]
)
def test_a_stride_is_whole_pages(floats, stride, is_aligned):
    shape = BlockShape((Part((floats,), "float32"),))
    assert (shape.stride, shape.is_aligned) == (stride, is_aligned)


def test_one_odd_tensor_spoils_the_alignment_of_the_next():
    halves = BlockShape((Part((512,), "float32"), Part((512,), "float32")))
    assert (halves.num_bytes, halves.is_aligned) == (4096, False)


def test_experts_of_another_shape_are_refused_by_name(tensors):
    shape = parts_of(tensors)
    with pytest.raises(
        ValueError, match=r"must have the tensors float32 \[2, 3\], bfloat16 \[2\], got float32 \[2, 3\],"
    ):
        shape.bytes_of([tensors[0], torch.zeros(3)])


def test_plain_data_gives_the_shape_back(tensors):
    shape = parts_of(tensors)
    assert BlockShape.from_json(json.loads(json.dumps(shape.to_json()))) == shape


def test_a_dtype_without_a_place_is_refused():
    with pytest.raises(ValueError, match=r"dtype of an expert must be one of float32, .*; got 'int16'"):
        parts_of([torch.zeros(2, dtype=torch.int16)])
