"""Targets and the machine: what code is generated for, and where it is timed."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import cast

from tvm.target import Target
from tvm.target.codegen import llvm_get_cpu_features, llvm_get_system_cpu, llvm_version_major

from tunewright.core.errors import ConfigError
from tunewright.core.types import MachineInfo, TargetSpec


def available_cpus() -> tuple[int, ...]:
    """CPU numbers that this process may run on, ascending."""
    return tuple(sorted(os.sched_getaffinity(0)))


def host_target(num_threads: int) -> TargetSpec:
    """This machine's CPU as LLVM names it."""
    return TargetSpec(mcpu=str(llvm_get_system_cpu()), num_threads=num_threads)


def parse_target(text: str, *, num_threads: int) -> TargetSpec:
    """Read a target: "host", a CPU name as LLVM knows it, or "llvm -mcpu=... -mattr=+a,-b", or TVM's JSON.

    Raises:
        ConfigError: the text is no CPU target or LLVM does not know the CPU.
    """
    if text == "host":
        return host_target(num_threads)
    attrs = _target_attrs(text)
    mcpu = str(attrs.get("mcpu", "")) or str(llvm_get_system_cpu())
    if attrs.get("kind", "llvm") != "llvm":
        raise ConfigError(
            f"target {text!r} is of kind {attrs['kind']!r}; only CPU targets ('llvm') can be tuned"
        )
    if mcpu not in _known_cpus():
        raise ConfigError(f"target {text!r}: LLVM knows no CPU {mcpu!r} for this machine; try --target host")
    mattr = attrs.get("mattr", ())
    features = mattr.split(",") if isinstance(mattr, str) else list(map(str, cast(list[object], mattr)))
    return TargetSpec(mcpu=mcpu, num_threads=num_threads, mattr=tuple(sorted(filter(None, features))))


def tvm_target(spec: TargetSpec) -> Target:
    """The TVM target of a specification."""
    return Target(spec.to_dict())


def vector_lanes(spec: TargetSpec) -> int:
    """How many 32-bit numbers one vector register of the target holds."""
    features = {str(name) for name in llvm_get_cpu_features(tvm_target(spec))}
    if "avx512f" in features:
        return 16
    return 8 if "avx" in features else 4


def num_vector_registers(spec: TargetSpec) -> int:
    """How many vector registers the target has."""
    target = tvm_target(spec)
    features = {str(name) for name in llvm_get_cpu_features(target)}
    return 32 if {"avx512f", "neon"} & features else 16


def machine_info() -> MachineInfo:
    """Describe this machine from /proc, /sys and the installed packages."""
    return MachineInfo(
        cpu_model=_cpu_model(),
        num_cpus=os.cpu_count() or 1,
        has_smt=_read("/sys/devices/system/cpu/smt/active") == "1",
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        os_kernel=platform.release(),
        tvm_version=importlib.metadata.version("apache-tvm"),
        tvm_ffi_version=importlib.metadata.version("apache-tvm-ffi"),
        llvm_version=str(llvm_version_major()),
    )


def _target_attrs(text: str) -> dict[str, object]:
    if text.lstrip().startswith("{"):
        try:
            attrs = json.loads(text)
        except json.JSONDecodeError as exc:
            raise ConfigError(f"target {text!r} is not JSON: {exc}") from None
        return dict(attrs)
    kind, *options = text.split()
    if not options and kind != "llvm":
        return {"mcpu": kind} if not kind.startswith("-") else _options([kind], text)
    return {"kind": kind, **(_options(options, text) if kind == "llvm" else {})}


def _options(options: list[str], text: str) -> dict[str, object]:
    attrs: dict[str, object] = {}
    for option in options:
        name, separator, value = option.lstrip("-").partition("=")
        if not option.startswith("-") or not separator or name not in ("mcpu", "mattr"):
            raise ConfigError(
                f"target {text!r}: {option!r} is not understood; write -mcpu=NAME or -mattr=+a,-b"
            )
        attrs[name] = value
    return attrs


def _known_cpus() -> frozenset[str]:
    from tvm.target.codegen import llvm_get_cpu_archlist

    return frozenset(str(cpu) for cpu in llvm_get_cpu_archlist(Target({"kind": "llvm"})))


def _cpu_model() -> str:
    info = _read("/proc/cpuinfo")
    fields = dict.fromkeys(
        ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part"), ""
    )
    for line in info.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in fields and not fields[name.strip()]:
            fields[name.strip()] = value.strip()
    # A virtual machine's model name may say no more than "Intel Xeon Processor": the numbers tell more.
    return " ".join(value for value in fields.values() if value) or platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
