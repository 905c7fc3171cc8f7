"""Machine code of a whole model: a stitched module in, a shared library out.

TVM compiles all kernels one after another and generates their code twice, once to keep and once to
export: 13 s for 37 kernels. Here every kernel goes straight to an object file, in a forked process of its
own and several at a time: 3.5 s on four cores. So this runs only in a process that has no other threads
and that may die (`tunewright.scheduler.build_child`).
"""

import os
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import tvm
from tvm import relax, te
from tvm.target.codegen import llvm_get_cpu_features
from tvm.tirx import PrimFunc

from tunewright.core.errors import EnvironmentProblem, TunewrightError
from tunewright.core.tvm_adapter.canonical import load_module
from tunewright.core.tvm_adapter.codegen import codegen_passes, codegen_target, generate_code
from tunewright.core.tvm_adapter.target import tvm_target
from tunewright.core.types import TargetSpec


class KernelBuildError(TunewrightError):
    """A kernel of a model could not be compiled."""


def build_library(mod_json: str, target: TargetSpec, out: Path, *, num_jobs: int) -> None:
    """Compile a stitched module into the shared library `out`; object files are left beside it.

    Raises:
        KernelBuildError: TVM or LLVM refused a kernel or crashed on it.
        EnvironmentProblem: the objects cannot be linked.
    """
    # TVM's default build pipeline lowers the graph; kernels are compiled below.
    with tvm_target(target):
        lowered = relax.get_pipeline("default")(load_module(mod_json))
    # One kernel stays: with an LLVM module present, TVM packs the graph's bytecode without a C compiler.
    if not any(isinstance(f, PrimFunc) for f in lowered.functions.values()):
        lowered["no_kernel"] = _copy()
    kernels = {var.name_hint: f for var, f in lowered.functions.items() if isinstance(f, PrimFunc)}
    kept = min(kernels, key=lambda name: len(kernels[name].script()))
    objects = _build_objects(
        {name: f for name, f in kernels.items() if name != kept}, target, out.parent, num_jobs
    )
    functions = {
        var: f for var, f in lowered.functions.items() if not isinstance(f, PrimFunc) or var.name_hint == kept
    }
    with codegen_passes():
        executable = relax.build(
            tvm.IRModule(functions, attrs=lowered.attrs), target=codegen_target(target), relax_pipeline=None
        )

    def link(output: str, files: Sequence[str], **_options: object) -> None:
        command = [*_linker(), "-shared", "-o", output, *files]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise EnvironmentProblem(f"the linker failed: {result.stderr.strip()[-500:]}")

    executable.export_library(str(out), fcompile=link, addons=[str(path) for path in objects])


def cpu_feature_names(target: TargetSpec) -> tuple[str, ...]:
    """LLVM's names of the features that code for this target may use."""
    return tuple(sorted(str(name) for name in llvm_get_cpu_features(tvm_target(target))))


def _linker() -> list[str]:
    """The linker inside the ziglang package (LLVM's lld): the same everywhere, with no compiler installed."""
    import ziglang

    return [str(Path(ziglang.__file__).parent / "zig"), "ld.lld"]


def _copy() -> PrimFunc:
    number = te.placeholder((1,), name="number")
    copy = te.create_prim_func([number, te.compute((1,), lambda i: number[i], name="copy")])
    return copy.with_attr("global_symbol", "no_kernel")


def _build_objects(
    kernels: Mapping[str, PrimFunc], target: TargetSpec, folder: Path, num_jobs: int
) -> list[Path]:
    # The largest first: a slow one that starts last would leave the other processors idle.
    pending = sorted(kernels, key=lambda name: len(kernels[name].script()))
    running: dict[int, str] = {}
    objects = {name: folder / f"kernel{index}.o" for index, name in enumerate(kernels)}
    while pending or running:
        while pending and len(running) < num_jobs:
            name = pending.pop()
            running[_fork_build(name, kernels[name], target, objects[name])] = name
        pid, status = os.wait()
        name = running.pop(pid)
        if status != 0:
            raise KernelBuildError(_why_failed(name, status, objects[name].with_suffix(".err")))
    return list(objects.values())


def _fork_build(name: str, kernel: PrimFunc, target: TargetSpec, out: Path) -> int:
    pid = os.fork()
    if pid != 0:
        return pid
    status = 1
    try:
        library = generate_code({name: kernel}, target)
        library.write_to_file(str(out), "o")
        status = 0
    except BaseException:  # the child must never return into the parent's code
        out.with_suffix(".err").write_text(traceback.format_exc(), encoding="utf-8")
    finally:
        sys.stderr.flush()
        os._exit(status)


def _why_failed(name: str, status: int, error_file: Path) -> str:
    if os.WIFSIGNALED(status):
        return f"the compiler crashed on kernel {name} (signal {os.WTERMSIG(status)})"
    lines = error_file.read_text(encoding="utf-8").strip().splitlines() if error_file.exists() else [""]
    return f"kernel {name} cannot be compiled: {lines[-1]}"
