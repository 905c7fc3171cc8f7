import pytest

from tests.notebooks.conftest import RunNotebook


@pytest.mark.tvm
@pytest.mark.slow
def test_compares_both_strategies(run_notebook: RunNotebook) -> None:
    output = run_notebook(
        "first_tuning",
        {
            "SIZE = 256": "SIZE = 64",
            "NUM_TRIALS = 64": "NUM_TRIALS = 9",
            "SEEDS = [0, 1, 2]": "SEEDS = [0]",
        },
    )
    assert "evolutionary: " in output.text
    assert "random: " in output.text
    assert len(output.pictures) == 2
