"""The notebooks run from their first cell to their last, with budgets cut to seconds."""

from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


@pytest.mark.tvm
@pytest.mark.slow
def test_first_tuning_compares_both_strategies(tmp_path: Path) -> None:
    source = (NOTEBOOKS / "first_tuning.py").read_text()
    for line, shorter in (
        ("SIZE = 256", "SIZE = 64"),
        ("NUM_TRIALS = 64", "NUM_TRIALS = 9"),
        ("SEEDS = [0, 1, 2]", "SEEDS = [0]"),
    ):
        assert line in source
        source = source.replace(line, shorter)
    notebook = jupytext.reads(source, fmt="py:percent")
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "evolutionary: " in text
    assert "random: " in text
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2
