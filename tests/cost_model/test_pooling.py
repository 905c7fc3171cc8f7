import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cost_model.trials import batch_of, features
from tunewright.cost_model.pooling import N_POOLED, pool_rows
from tunewright.cost_model.tiles import N_TILE_COLUMNS


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), max_size=8), st.integers(0, 1000))
def test_pools_each_candidate_as_a_loop_would(n_stores: list[int], seed: int) -> None:
    arrays = [features(seed + index, n) for index, n in enumerate(n_stores)]
    pooled = pool_rows(batch_of(arrays))
    assert pooled.shape == (len(arrays), N_POOLED)
    assert pooled.dtype == np.float32
    for row, array in zip(pooled, arrays, strict=True):
        heaviest = max(array, key=lambda store: max(store[:16]))
        expected = [*array.max(axis=0), *heaviest, *[0.0] * N_TILE_COLUMNS]
        np.testing.assert_array_equal(row, expected)
