"""Who looks at operators as they run is noticed."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import vmap
from workbench_kernels.tracing import is_traced


def test_plain_tensors_are_not_traced():
    assert not is_traced(torch.ones(1), torch.nn.Parameter(torch.ones(1)))
    with torch.inference_mode(), torch.autocast("cpu"):
        assert not is_traced(torch.ones(1))


def test_a_mode_a_transform_and_a_subclass_are():
    class Own(torch.Tensor):
        pass

    seen = []
    with FakeTensorMode():
        seen.append(is_traced())
    vmap(lambda x: seen.append(is_traced(x)) or x)(torch.ones(2))
    seen.append(is_traced(torch.ones(1).as_subclass(Own)))
    assert seen == [True, True, True]
