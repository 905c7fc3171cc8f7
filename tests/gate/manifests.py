"""Folders that look like compiled models; their code does not run."""

from pathlib import Path

from tests.gate.fakes import HERE
from tunewright.core.types import TargetSpec, TensorSpec
from tunewright.scheduler.manifest import LIBRARY_FILE, PARAMS_FILE, Manifest


def make_folder(folder: Path, *, library: bytes) -> Path:
    folder.mkdir(parents=True)
    spec = ("x", TensorSpec((1,), "float32"))
    Manifest("net", (spec,), (spec,), 0, TargetSpec("znver5", 1), (), HERE, "0.1.0", ()).write(folder)
    (folder / LIBRARY_FILE).write_bytes(library)
    (folder / PARAMS_FILE).write_bytes(b"")
    return folder
