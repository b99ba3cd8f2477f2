"""The payload container, read back by a decoder of its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from workbench.payloads.container import DTYPES, encode, header_of

SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)


@given(
    st.dictionaries(
        st.text("abc_", min_size=1, max_size=8),
        st.sampled_from(sorted(DTYPES)).flatmap(lambda dtype: arrays.arrays(dtype, SHAPES)),
        max_size=5,
    )
)
def test_every_array_comes_back_with_its_dtype_shape_and_bits(decode, values):
    _, found = decode(encode("loss_curves", {}, values))
    assert found.keys() == values.keys()
    for name, array in values.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == np.ascontiguousarray(array).tobytes()


@given(st.lists(st.text()))
def test_any_text_survives_even_half_a_surrogate_pair(decode, pieces):
    header, _ = decode(encode("token_strip", {"pieces": [*pieces, "\ud800", "</script>"]}, {}))
    assert header["pieces"] == [*pieces, "\ud800", "</script>"]


def test_nan_and_infinity_stay_in_the_arrays(decode):
    _, found = decode(encode("loss_curves", {}, {"loss": np.array([np.nan, np.inf, -np.inf, 1.5], np.float32)}))
    assert np.array_equal(found["loss"], np.array([np.nan, np.inf, -np.inf, 1.5], np.float32), equal_nan=True)


def test_a_header_with_nan_is_refused_because_browsers_cannot_read_it():
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        encode("loss_curves", {"loss": float("nan")}, {})


def test_a_dtype_without_a_typed_array_is_refused_by_name():
    with pytest.raises(ValueError, match=r"array 'step' must be one of float32, .* got int64"):
        encode("loss_curves", {}, {"step": np.arange(3, dtype=np.int64)})


def test_every_header_has_what_each_view_shows_whatever_its_kind(decode):
    header, _ = decode(encode("expert_load", {"empty": "nothing"}, {}))
    assert header == {"view": "expert_load", "statements": [], "badge": "", "empty": "nothing", "arrays": []}


def test_big_endian_and_strided_arrays_are_written_as_the_layout_says(decode):
    strided = np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2]
    _, found = decode(encode("loss_curves", {}, {"x": strided}))
    assert found["x"].tolist() == [[0, 2], [4, 6], [8, 10]]


def test_header_of_reads_the_header_alone():
    payload = encode("token_strip", {"statements": ["One."]}, {"x": np.zeros(3, np.int8)})
    assert header_of(payload)["statements"] == ["One."]
    with pytest.raises(ValueError, match="starts with b'MOEV', got b'GIF8'"):
        header_of(b"GIF89a")
