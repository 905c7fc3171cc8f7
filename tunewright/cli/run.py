"""`tunewright run`: a compiled model on arrays from files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunewright.cli.output import Column, Format, FormatOption, print_rows
from tunewright.core.errors import ConfigError

if TYPE_CHECKING:
    import numpy.typing as npt

_NUM_SHOWN = 4


def run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `tunewright compile` wrote.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="[NAME=]FILE", help="A .npy file per input; NAME where there are several."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the outputs to this .npz file.")
    ] = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Run a compiled model once and show its outputs, or write them to a file."""
    from tunewright.scheduler.bundle import load

    arrays = read_inputs(inputs or [])
    model = load(folder)
    if set(arrays) == {""} and len(model.inputs) == 1:
        arrays = {name: arrays[""] for name in model.inputs}
    elif "" in arrays:
        raise ConfigError(f"name each input: --input NAME=FILE, for {', '.join(model.inputs)}")
    outputs = model.run_named(arrays)
    if output is not None:
        _write(output, outputs)
        typer.echo(f"wrote {output}", err=True)
        return
    print_rows(list(outputs.items()), _COLUMNS, output_format, empty="the model has no outputs")


def read_inputs(texts: Sequence[str]) -> dict[str, "npt.NDArray[Any]"]:
    """`["x.npy"]` -> `{"": array}`; `["a=x.npy"]` -> `{"a": array}`. A file named "a=x.npy" wins over a name.

    Raises:
        ConfigError: a file is missing or no .npy file, or a name comes twice.
    """
    import numpy as np

    arrays: dict[str, npt.NDArray[Any]] = {}
    for text in texts:
        name, _, file = ("", "", text) if Path(text).is_file() else text.rpartition("=")
        if name in arrays:
            raise ConfigError(
                f"--input {text}: {f'{name!r} is' if name else 'an unnamed input is'} given twice"
            )
        try:
            value: Any = np.load(file)
        except FileNotFoundError:
            raise ConfigError(f"--input {text}: {file} does not exist; give a .npy file") from None
        except (OSError, ValueError, EOFError) as exc:
            raise ConfigError(f"--input {text}: {file} cannot be read as .npy: {exc}") from exc
        if not isinstance(value, np.ndarray):
            raise ConfigError(f"--input {text}: {file} holds several arrays; give a .npy file with one")
        arrays[name] = value
    return arrays


def _write(path: Path, outputs: Mapping[str, "npt.NDArray[Any]"]) -> None:
    import numpy as np

    try:
        with path.open("wb") as file:
            np.savez(file, **{name: array for name, array in outputs.items()})  # type: ignore[arg-type]
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written ({exc.strerror}); give another --output") from exc


_Output = tuple[str, "npt.NDArray[Any]"]

_COLUMNS: list[Column[_Output]] = [
    Column("name", lambda row: row[0], title="output"),
    Column("dtype", lambda row: str(row[1].dtype), title="dtype"),
    Column(
        "shape",
        lambda row: list(row[1].shape),
        title="shape",
        text=lambda row: "x".join(map(str, row[1].shape)),
    ),
    Column(
        "values",
        lambda row: row[1].tolist(),
        title="first values",
        text=lambda row: " ".join(f"{value:.6g}" for value in row[1].flatten()[:_NUM_SHOWN].tolist()),
    ),
]
