"""Write a golden log, once per schema version: `python make_golden_log.py data/schema_0001.db.gz`.

What is written is never written again: it must open for ever.
"""

import dataclasses
import gzip
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from log_samples import MACHINE, START, make_features, make_record, make_session, make_task, success

from tunewright.core.types import (
    Candidate,
    CandidateKey,
    FailureKind,
    MachinePeak,
    MeasureFailure,
    ModelSnapshot,
    Origin,
)
from tunewright.tuning_logs import TuningLog

TRACE = (Path(__file__).parent / "data" / "matmul_relu_trace.json").read_text().strip()


def fill(log: TuningLog) -> None:
    task, elsewhere, untouched = make_task(128), make_task(128, mcpu="znver4", num_threads=8), make_task(512)
    log.add_tasks([task, elsewhere, untouched])
    log.start_session(make_session(task, untouched))
    log.start_session(make_session(elsewhere, session_id="session-2"))
    results = [
        dataclasses.replace(
            success(0.00021, 0.0002, 0.00022), object_key="c" * 64, yardstick_secs=0.25, is_noisy=True
        ),
        success(0.00018, 0.0002, 0.00019),
        success(0.0001, is_verified=False),
        MeasureFailure(
            FailureKind.RUN, "SIGSEGV (segmentation fault) in the kernel: é \x1b[31m", 0.4, build_secs=0.3
        ),
        MeasureFailure(FailureKind.PRUNED, "3.5 x the incumbent", 0.5, build_secs=0.3, run_secs=(0.0007,)),
        success(0.00012),
    ]
    trials = [
        (make_record(task, number, result), make_features(number) if number == 5 else None)
        for number, result in enumerate(results)
    ]
    record, features = trials[1]
    candidate = Candidate(task.key, TRACE, Origin.MUTATION, CandidateKey(trials[0][0].candidate.key))
    trials[1] = (
        dataclasses.replace(record, candidate=candidate, model_id="a" * 64, predicted_score=0.75),
        features,
    )
    stored = log.append(trials)
    other_machine = dataclasses.replace(MACHINE, cpu_model="Other CPU", num_cpus=8)
    log.append([(make_record(elsewhere, 0, session_id="session-2", machine=other_machine), None)])
    log.add_race(stored[1].record_id, [0.000195, 0.000197, 0.000196], START + timedelta(minutes=5))
    log.mark_unusable(stored[5].record_id, "does not replay")
    log.add_elapsed("session-1", 12.5)
    log.add_peak(MachinePeak(MACHINE, task.target, 3.2e11, ((1 << 18, 8e10), (1 << 30, 1.1e10)), START))
    log.save_model(
        ModelSnapshot("a" * 64, "xgboost", b"ubj", "features/1", 6, {"rank_correlation": 0.5}, START)
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tuning.db"
        with TuningLog.open(f"sqlite:///{path}") as log:
            fill(log)
        Path(sys.argv[1]).write_bytes(gzip.compress(path.read_bytes(), mtime=0))
