from pathlib import Path

import numpy as np
import pytest
from ml_dtypes import bfloat16

from tunewright.scheduler.array_file import load_arrays, save_arrays


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_arrays_come_back_in_order_with_their_types(shape: tuple[int, ...], tmp_path: Path) -> None:
    arrays = [np.full(shape, number, dtype) for number, dtype in enumerate([bfloat16, np.uint8, np.float32])]
    save_arrays(tmp_path / "a.npz", arrays * 5)  # more than ten: "10" sorts before "2"
    for loaded, array in zip(load_arrays(tmp_path / "a.npz"), arrays * 5, strict=True):
        assert loaded.dtype == array.dtype
        np.testing.assert_array_equal(loaded, array)
