"""The `tunewright` command: its subcommands, and how their errors end."""

import os
import sys
from collections.abc import Sequence

import typer

from tunewright.cli import (
    bench,
    compile,
    db,
    doctor,
    gate,
    machine,
    model,
    plot,
    report,
    run,
    tasks,
    tune,
)
from tunewright.core.errors import (
    ConfigError,
    CoverageError,
    EnvironmentProblem,
    StoreError,
    TunewrightError,
    WorkerUnavailableError,
)

EXIT_NO = 1
EXIT_USAGE = 2
EXIT_ENVIRONMENT = 3

app = typer.Typer(
    name="tunewright",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="ML-guided auto-scheduling: tune a model, keep every measurement, compile from the log.",
)
app.command("tune")(tune.tune)
app.command("tasks")(tasks.tasks)
app.command("compile")(compile.compile_)
app.command("run")(run.run)
app.command("bench")(bench.bench)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)
app.add_typer(db.app, name="db")
app.add_typer(gate.app, name="gate")
app.add_typer(machine.app, name="machine")
app.add_typer(model.app, name="model")
app.add_typer(plot.app, name="plot")


def exit_code(error: TunewrightError) -> int:
    """0 done, 1 the answer is no, 2 wrong usage or bad input, 3 the environment failed."""
    match error:
        case CoverageError():
            return EXIT_NO
        case ConfigError():
            return EXIT_USAGE
        case EnvironmentProblem() | StoreError() | WorkerUnavailableError():
            return EXIT_ENVIRONMENT
    raise error  # a bug of ours: its stack trace is wanted


def main(args: Sequence[str] | None = None) -> None:
    """Entry point: run a subcommand, turn what a user can mend into one line on stderr."""
    try:
        app(args=list(args) if args is not None else None)
    except TunewrightError as error:
        code = exit_code(error)
        print(f"tunewright: {error}", file=sys.stderr)
        sys.exit(code)
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`): nothing is wrong, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
