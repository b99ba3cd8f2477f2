"""Experts as they are."""

import torch

from workbench.offload.formats.exact import Exact


def test_the_page_is_the_expert_itself():
    tensors = [torch.randn(3, 4), torch.randn(5).bfloat16(), torch.randn(2, dtype=torch.float64)]
    pages, left = Exact().encode(tensors)
    assert len(pages) == 1 and left[1] == 0
    assert [one.data_ptr() for one in pages[0]] == [one.data_ptr() for one in tensors]
    out = [torch.empty_like(one) for one in tensors]
    Exact().decode(pages, out)
    assert all(map(torch.equal, out, tensors))
    assert Exact.is_lossless and Exact().levels == 1
