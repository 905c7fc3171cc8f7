"""Which vector features compiled code needs, and whether this machine has them.

Code for a CPU that this machine is not would end the process with an illegal instruction.
"""

from collections.abc import Iterable
from pathlib import Path

# LLVM's name -> the name in /proc/cpuinfo, of the features that LLVM uses on its own in numeric code.
_GUARDED = {
    "sse4.2": "sse4_2",
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512cd": "avx512cd",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512vnni": "avx512_vnni",
    "dotprod": "asimddp",
    "fullfp16": "asimdhp",
    "i8mm": "i8mm",
    "sve": "sve",
    "sve2": "sve2",
}


def required_features(llvm_features: Iterable[str]) -> tuple[str, ...]:
    """The /proc/cpuinfo names of those LLVM features whose absence would be fatal, sorted."""
    return tuple(sorted(_GUARDED[name] for name in llvm_features if name in _GUARDED))


def missing_features(required: Iterable[str], cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Those of `required` that this machine lacks; () where the machine does not say what it has."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            present = set(value.split())
            return tuple(feature for feature in required if feature not in present)
    return ()
