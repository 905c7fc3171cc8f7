"""The notebook on a log whose secrets are known, and on kernels that it tunes itself."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.notebooks.conftest import RunNotebook
from tests.tuning_logs.log_samples import make_features, make_record, make_session, make_task, success
from tunewright.core.log_url import file_url
from tunewright.core.types import FloatArray, TuningRecord, TuningTask
from tunewright.cost_model.feature_names import STORE_COLUMNS
from tunewright.tuning_logs import TuningLog

REUSE = STORE_COLUMNS.index("buffer 1: reuse count")
LIAR = 17  # the trial of each task that is much slower than its features say
NUM_RECORDS = 60
NUM_PICTURES = 6


def records_of(task: TuningTask, seed: int) -> Iterator[tuple[TuningRecord, FloatArray]]:
    """Times follow from one column of the only store: the more of it, the faster."""
    for number in range(NUM_RECORDS):
        features = np.abs(make_features(1000 * seed + number, n_stores=1))
        if number == LIAR:
            features[0, REUSE] = 2.0
        log2_secs = -1.2 * float(features[0, REUSE]) + 4.0 * (number == LIAR)
        yield make_record(task, number, success(2.0**log2_secs)), features


def numbers_in(text: str, pattern: str) -> Sequence[float]:
    return [float(number) for number in re.findall(pattern, text, flags=re.MULTILINE)]


@pytest.mark.slow
def test_finds_what_a_log_was_made_of(
    run_notebook: RunNotebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [make_task(size) for size in (64, 65, 66)]
    with TuningLog.open(file_url(tmp_path / "known.db")) as log:
        log.add_tasks(tasks)
        log.start_session(make_session(*tasks))
        for seed, task in enumerate(tasks):
            log.append(list(records_of(task, seed)))
    monkeypatch.setenv("TUNEWRIGHT_LOG", str(tmp_path / "known.db"))
    output = run_notebook(
        "what_the_model_learned", {"SEEDS = [0, 1, 2]": "SEEDS = [0]", "range(9)": "range(4)"}
    )

    assert f"{3 * NUM_RECORDS} records of 3 tasks" in output.text
    families = re.findall(r"^(.+): moves scores by .* falls by (\S+) ", output.text, re.MULTILINE)
    (family, loss), *others = families
    assert family == "reuse of data" and float(loss) > 0.5
    assert max(float(loss) for _, loss in others) < 0.2
    best_column = re.search(r"^\d\.\d{3} (.+)$", output.text, re.MULTILINE)
    assert best_column is not None
    assert re.fullmatch(r" \+  (largest|main loop nest): buffer 1: reuse count", best_column[1])
    # The liar of every task is its worst mistake: it seemed fast.
    worst = numbers_in(output.text, r"^matmul_6[456], trial (\d+)$")
    assert sorted(worst) == [LIAR + 1 + NUM_RECORDS * place for place in range(3)]
    # The law is the same in all tasks, so each teaches the others.
    (from_own,) = numbers_in(output.text, r"from its own records: (\S+)$")
    (from_other,) = numbers_in(output.text, r"from one other task: (\S+)$")
    assert from_own > 0.5 and from_other > 0.5
    curves = re.findall(r"^(?:candidates of known|unseen) tasks: (.+)$", output.text, re.MULTILINE)
    for curve in curves:
        points = numbers_in(curve, r"records (\S+?)(?:,|$)")
        assert points[-1] > 0.7 and points[-1] > points[0]
    # Nothing had been scored before it was measured, which takes two pictures away.
    assert "0 candidates had been scored" in output.text and len(output.pictures) == NUM_PICTURES - 2


@pytest.mark.tvm
@pytest.mark.slow
def test_tunes_kernels_where_no_log_is_named(
    run_notebook: RunNotebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNEWRIGHT_LOG", raising=False)
    output = run_notebook(
        "what_the_model_learned",
        {
            "NUM_TRIALS = 64": "NUM_TRIALS = 12",
            "SEEDS = [0, 1, 2]": "SEEDS = [0]",
            "    product(128, 128, 128),\n": "",
            "    product(32, 512, 64),\n": "",
            "    convolution(14, 32, 3),\n": "",
            "    convolution(14, 64, 1),\n": "",
        },
    )
    assert re.search(r"^4\d records of 2 tasks for ", output.text, re.MULTILINE)
    # The model of the second session knew the first one's trials.
    (num_scored,) = numbers_in(output.text, r"^(\d+) candidates had been scored")
    assert num_scored >= 12
    # Schedules stand there in words, with what misled the model.
    assert re.search(r"^  schedule: .*tile j ", output.text, re.MULTILINE)
    assert "misled by: " in output.text
    assert re.search(r"^ +-?\d\.\d\d +\d+ % +\d\.\d\d   conv2d_relu 28x28x64", output.text, re.MULTILINE)
    assert len(output.pictures) == NUM_PICTURES
