"""`tunewright doctor`: can this machine tune, and if not, what to do."""

import json
import os
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from tunewright.cli import settings
from tunewright.cli.doctor_checks import Finding, Status, diagnose

_COLORS = {Status.OK: typer.colors.GREEN, Status.WARN: typer.colors.YELLOW, Status.FAIL: typer.colors.RED}
_TEXT_COLUMN = 16
_ENVIRONMENT_FAILED = 3


class ReportFormat(StrEnum):
    """`json` for programs."""

    TABLE = "table"
    JSON = "json"


def doctor(
    log: settings.LogOption = None,
    report_format: Annotated[
        ReportFormat, typer.Option("--format", "-f", help="Lines for people, or JSON.")
    ] = ReportFormat.TABLE,
) -> None:
    """Check whether this machine can tune, and say what to do where it cannot (exit code 3)."""
    findings = diagnose(settings.log_url(log), environ=os.environ)
    can_tune = all(finding.status is not Status.FAIL for finding in findings)
    if report_format is ReportFormat.JSON:
        document = {"can_tune": can_tune, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(document, indent=2))
    else:
        typer.echo(report(findings, width=min(shutil.get_terminal_size().columns, 120)))
    if not can_tune:
        raise typer.Exit(_ENVIRONMENT_FAILED)


def report(findings: Sequence[Finding], *, width: int) -> str:
    """The findings as lines for people, `width` columns wide, and a verdict."""
    lines = []
    for finding in findings:
        status = typer.style(f"{finding.status:<5}", fg=_COLORS[finding.status])
        lines.append(f"{status} {finding.check:<{_TEXT_COLUMN - 6}}{_wrapped(finding.message, width)}")
        if finding.cure:
            # Not wrapped: what is to be typed can be copied.
            lines.append(f"{'':<{_TEXT_COLUMN}}→ {finding.cure}")
    num_failed = sum(finding.status is Status.FAIL for finding in findings)
    num_warned = sum(finding.status is Status.WARN for finding in findings)
    warnings = f"{num_warned} warning{'' if num_warned == 1 else 's'}"
    verdict = "cannot tune before what failed above is cured" if num_failed else "can tune"
    lines.append(f"\nThis machine {verdict} ({warnings}).")
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> str:
    lines = textwrap.wrap(text, max(width - _TEXT_COLUMN, 40), break_on_hyphens=False, break_long_words=False)
    return ("\n" + " " * _TEXT_COLUMN).join(lines)
