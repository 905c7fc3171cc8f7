"""The option of every command that takes records of the log: whose may be used."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tunewright.tuning_logs import Match


class MatchChoice(StrEnum):
    """The values of `tuning_logs.MatchPolicy`, which SQLAlchemy would have to be loaded for."""

    EXACT = "exact"
    COMPATIBLE = "compatible"
    ANY = "any"


MatchOption = Annotated[
    MatchChoice,
    typer.Option(
        "--match",
        help="Records to use: exact = timed on this kind of machine, verified with this TVM and LLVM; "
        "compatible = verified with this release series of TVM; any. The closest come first.",
    ),
]


def match_here(choice: MatchChoice) -> "Match":
    """The policy, as seen from this machine and its software."""
    from tunewright.core.tvm_adapter.target import machine_info
    from tunewright.tuning_logs import Match, MatchPolicy

    return Match(MatchPolicy(choice.value), machine_info())
