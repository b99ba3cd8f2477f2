"""The signatures are checked while testing, in every worker; this test fails when the hook is off."""

import jaxtyping
import pytest
import torch

from workbench.core import Batch


def test_a_wrong_shape_is_refused_while_testing():
    with pytest.raises(jaxtyping.TypeCheckError, match="token_ids"):
        Batch(token_ids=torch.zeros(3, dtype=torch.long))


def test_a_wrong_dtype_is_refused_while_testing():
    with pytest.raises(jaxtyping.TypeCheckError, match="token_ids"):
        Batch(token_ids=torch.zeros(2, 3))


def test_one_letter_has_one_size():
    with pytest.raises(jaxtyping.TypeCheckError, match="target_ids"):
        Batch(token_ids=torch.zeros(2, 3, dtype=torch.long), target_ids=torch.zeros(2, 4, dtype=torch.long))
