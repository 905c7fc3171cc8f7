"""The notebook with short times: what was slowed down is found, and what is the same is not."""

import re
from pathlib import Path

import pytest

from tests.notebooks.conftest import RunNotebook

EDITED, UNTOUCHED = "matmul_relu 64x128 * 128x256 -> 64x256", "matmul 64x256 * 256x96 -> 64x96"


@pytest.mark.tvm
@pytest.mark.slow
def test_finds_what_was_slowed_down_and_nothing_else(
    run_notebook: RunNotebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))  # where this machine's noise floor may be
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    output = run_notebook(
        "a_regression_caught",
        {
            "NUM_TRIALS = 48": "NUM_TRIALS = 8",
            "SAMPLE_MS = 50": "SAMPLE_MS = 5",
            "LOOKS = (15, 30, 50, 80)": "LOOKS = (15, 30)",
        },
    )
    lines = output.text.splitlines()

    # What was injected: the first loop is not tiled any more, and that is all.
    changes = re.findall(r"^  tile (.+)$", output.text, re.MULTILINE)
    assert len(changes) == 1 and re.fullmatch(r"i \S+ -> 64x1x1", changes[0])
    assert f"{EDITED}: regressed" in lines and f"{UNTOUCHED}: same" in lines
    found = re.search(r"<failure message=\"\+(\d+\.\d) %", output.text)
    assert found is not None and float(found[1]) > 30
    assert 'failures="1" errors="0"' in output.text and "### Performance gate found a regression" in lines
    assert "exit status of the gate: 1; with the slowdown accepted: 0" in lines
    assert "the faster schedule needs more memory than the device has" in output.text

    verdicts = dict(re.findall(r"^(the .+): (\w+) after \d+ pairs", output.text, re.MULTILINE))
    assert verdicts["the edited schedule"] == "regressed"
    assert verdicts["the same code twice"] in ("same", "inconclusive")
    assert verdicts["the same code twice, a busy neighbour"] in ("same", "inconclusive")
    looks = re.findall(r"^ +(\d+) pairs: +(\S+) %, from +(\S+) to +(\S+) %", output.text, re.MULTILINE)
    assert [int(num_pairs) for num_pairs, *_ in looks] == [15, 30] * 3
    assert all(float(low) <= float(center) <= float(high) for _, center, low, high in looks)
    assert len(output.pictures) == 3
