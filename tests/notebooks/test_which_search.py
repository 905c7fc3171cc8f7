import pytest

from tests.notebooks.conftest import RunNotebook


@pytest.mark.tvm
@pytest.mark.slow
def test_all_searches_and_the_vendor_are_compared(run_notebook: RunNotebook) -> None:
    output = run_notebook(
        "which_search",
        {
            "LAYERS = [(64, 56), (128, 28), (256, 14)]": "LAYERS = [(16, 8)]",
            "NUM_TRIALS = 64": "NUM_TRIALS = 18",
            "SEEDS = [0, 1, 2]": "SEEDS = [0]",
            "BATCH_SIZE = 16": "BATCH_SIZE = 9",
            "NUM_BLOCKS, NUM_ROUNDS = 3, 8": "NUM_BLOCKS, NUM_ROUNDS = 1, 2",
        },
    )
    assert "16 x 8 x 8: ONNX Runtime " in output.text
    for label in ("learned", "genetic, no model", "Optuna TPE", "Optuna CMA-ES", "random"):
        assert f"\n{label} " in output.text
    assert "nan" not in output.text
    assert ", 0 of them wrong" in output.text
    assert len(output.pictures) == 1
