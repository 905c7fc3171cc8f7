"""Arrays in a .npz file, those of types that NumPy itself does not know (bfloat16) included."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunewright.workers.inputs import numpy_dtype

Array = npt.NDArray[Any]


def save_arrays(path: Path | str, arrays: Iterable[Array]) -> None:
    """Write arrays, in order."""
    named = {f"{number}/{array.dtype.name}": _storable(array) for number, array in enumerate(arrays)}
    np.savez(path, allow_pickle=False, **named)


def load_arrays(path: Path | str) -> list[Array]:
    """What `save_arrays` has written."""
    with np.load(path, allow_pickle=False) as archive:
        return [archive[name].view(numpy_dtype(name.partition("/")[2])) for name in archive.files]


def _storable(array: Array) -> Array:
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array
