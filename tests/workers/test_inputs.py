"""The arrays that kernels are timed and verified on."""

import numpy as np
import pytest

from tunewright.core.types import TensorSpec
from tunewright.workers.inputs import InputSet, make_inputs

TYPES = ["float32", "float16", "int8", "uint8", "int32", "bool"]
LARGE = (3, 256, 128)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("input_set", InputSet)
def test_shapes_and_types_are_as_asked_and_a_seed_gives_the_same(dtype: str, input_set: InputSet) -> None:
    specs = [TensorSpec((), dtype), TensorSpec((5, 0), dtype), TensorSpec(LARGE, dtype)]
    arrays = make_inputs(specs, input_set, seed=3)
    assert [(array.shape, array.dtype.name) for array in arrays] == [(s.shape, s.dtype) for s in specs]
    for array, again in zip(arrays, make_inputs(specs, input_set, seed=3), strict=True):
        np.testing.assert_array_equal(array, again)
    assert np.any(make_inputs(specs, input_set, seed=4)[2] != arrays[2])


@pytest.mark.parametrize("input_set", InputSet)
def test_no_row_plane_or_tile_can_be_taken_for_another(input_set: InputSet) -> None:
    """Larger than what is drawn, so that values recur: never at a distance that a wrong index would have."""
    flat = make_inputs([TensorSpec((512, 1024), "float32")], input_set, seed=0)[0].ravel()
    for distance in [1, 3, 7, 16, 48, 128, 1024, 3 * 1024, 64 * 1024, 65536, 100 * 1024, 256 * 1024]:
        assert np.mean(flat[distance:] != flat[:-distance]) > 0.6, distance


def test_values_are_finite_and_normal() -> None:
    for input_set in InputSet:
        values = make_inputs([TensorSpec(LARGE, "float32")], input_set, seed=1)[0]
        assert np.isfinite(values).all()
        nonzero = np.abs(values[values != 0])
        assert nonzero.min() >= np.finfo(np.float32).tiny
