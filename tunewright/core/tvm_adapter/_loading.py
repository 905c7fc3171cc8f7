"""Import TVM without torch, and without the import of its tensor intrinsics (25-40 s)."""

import importlib
import sys
import types
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path


class _HiddenTorch:
    """A `sys.meta_path` finder that says torch is not installed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torch" or name.startswith("torch."):
            raise ModuleNotFoundError(f"{name} is hidden while TVM loads", name=name)
        return None


def load_tvm() -> None:
    """Import `tvm` once; later calls return at once, and where somebody was faster, torch stays visible."""
    if "tvm" in sys.modules:
        _stub_tensor_intrin()
        return
    hidden = _HiddenTorch()
    sys.meta_path.insert(0, hidden)
    try:
        importlib.import_module("tvm")
        _stub_tensor_intrin()
        importlib.import_module("tvm.s_tir.meta_schedule")
    finally:
        sys.meta_path.remove(hidden)


def _stub_tensor_intrin() -> None:
    """Make `import tvm.s_tir.tensor_intrin` cheap.

    `TuneContext.__init__` imports the whole package, which parses some 250 TVMScript intrinsics for
    every architecture. We use TVM's "llvm" rules, which tensorize nothing (the x86 int8 intrinsics of
    0.27 do not build or compute wrong numbers), so an empty package of the same name serves. Its
    `__path__` is real: a submodule that somebody needs can still be imported by name.
    """
    name = "tvm.s_tir.tensor_intrin"
    if name in sys.modules:
        return
    parent = importlib.import_module("tvm.s_tir")
    package = types.ModuleType(name)
    package.__path__ = [str(Path(str(parent.__file__)).parent / "tensor_intrin")]
    sys.modules[name] = package
    parent.tensor_intrin = package  # type: ignore[attr-defined]
