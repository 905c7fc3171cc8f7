"""Whose records may be used: the target is always part of a task's key; machine and software are policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tunewright.core.types import MachineInfo


class MatchPolicy(StrEnum):
    """How alike the machine and the software of a record must be to those that ask; judged record by record.

    EXACT: timed on a machine of the same fingerprint, its outputs compared with the same TVM and LLVM.
    COMPATIBLE: its outputs compared with a TVM of the same release series (0.27.x), on whatever machine.
    ANY: no restriction. What matches more closely always comes first.
    """

    EXACT = "exact"
    COMPATIBLE = "compatible"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Match:
    """A policy and the machine, with its software, that asks."""

    policy: MatchPolicy
    machine: MachineInfo


@dataclass(frozen=True, slots=True)
class Tier:
    """Records that match equally well: where timed, and with which software verified; None: wherever."""

    timed_on: frozenset[int] | None
    verified_on: frozenset[int] | None


def tiers(match: Match | None, machines: Mapping[int, MachineInfo]) -> list[Tier]:
    """The tiers that may be used, the best first; `machines` are all of the log, by row id."""
    if match is None:
        return [Tier(None, None)]
    here = match.machine
    same_hardware = frozenset(i for i, m in machines.items() if m.fingerprint == here.fingerprint)
    same_software = frozenset(i for i, m in machines.items() if software(m) == software(here))
    series = frozenset(
        i for i, m in machines.items() if release_series(m.tvm_version) == release_series(here.tvm_version)
    )
    exact, compatible = Tier(same_hardware, same_software), Tier(None, series)
    match match.policy:
        case MatchPolicy.EXACT:
            return [exact]
        case MatchPolicy.COMPATIBLE:
            return [exact, Tier(same_hardware, series), compatible]
    return [exact, Tier(same_hardware, series), compatible, Tier(None, None)]


def software(machine: MachineInfo) -> tuple[str, str, str]:
    return machine.tvm_version, machine.tvm_ffi_version, machine.llvm_version


def release_series(version: str) -> str:
    """0.27 of 0.27.0.post1."""
    return ".".join(version.split(".")[:2])
