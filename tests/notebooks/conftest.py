"""Runs a notebook from its first cell to its last, with budgets cut to seconds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
_TIMEOUT_SECS = 300


@dataclass(frozen=True, slots=True)
class NotebookOutput:
    """What the cells showed: all printed text, the pictures (PNG, base64) and the HTML of objects."""

    text: str
    pictures: tuple[str, ...]
    html: tuple[str, ...]


RunNotebook = Callable[[str, Mapping[str, str]], NotebookOutput]


@pytest.fixture
def run_notebook(tmp_path: Path) -> RunNotebook:
    """`run_notebook("first_tuning", {"SIZE = 256": "SIZE = 64"})`: its output, with these lines exchanged."""

    def run(name: str, shorter: Mapping[str, str]) -> NotebookOutput:
        source = (NOTEBOOKS / f"{name}.py").read_text()
        for line, replacement in shorter.items():
            assert line in source
            source = source.replace(line, replacement)
        notebook = jupytext.reads(source, fmt="py:percent")
        resources = {"metadata": {"path": tmp_path}}
        NotebookClient(notebook, timeout=_TIMEOUT_SECS, kernel_name="python3", resources=resources).execute()
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        data = [output.get("data", {}) for output in outputs]
        return NotebookOutput(
            text="".join(output.text for output in outputs if output.output_type == "stream"),
            pictures=tuple(one["image/png"] for one in data if "image/png" in one),
            html=tuple(one["text/html"] for one in data if "text/html" in one),
        )

    return run
