"""Files with the right outputs of a workload: written by one child, read by many."""

import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tunewright.workers.inputs import Array, InputSet, numpy_dtype


def save_outputs(path: str, outputs: Mapping[InputSet, Sequence[Array]]) -> None:
    """Write an .npz file; it appears under `path` only when it is complete."""
    arrays: dict[str, Array] = {}
    for input_set, tensors in outputs.items():
        for position, tensor in enumerate(tensors):
            name = f"{input_set}/{position}/{tensor.dtype.name}"
            # Bytes, as .npz does not know the types of ml_dtypes; the shape stays on the outer axes.
            arrays[name] = np.ascontiguousarray(tensor).reshape(*tensor.shape, 1).view(np.uint8)
    part = f"{path}.part"
    with open(part, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    os.replace(part, path)


def load_outputs(path: str) -> Iterator[tuple[InputSet, list[Array]]]:
    """Yield the outputs of one input set after the other."""
    with np.load(path, allow_pickle=False) as file:
        for input_set in InputSet:
            names = [name for name in file.files if name.startswith(f"{input_set}/")]
            names.sort(key=lambda name: int(name.split("/")[1]))
            yield input_set, [file[name].view(numpy_dtype(name.split("/")[2]))[..., 0] for name in names]
