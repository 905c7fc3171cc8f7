"""One run of one tuner, in a process of its own: `python -m side_by_side.unit JOB.json`."""

import importlib.metadata
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from side_by_side import tuners
from side_by_side.results import UnitKey, UnitResult, save_unit

_DISTRIBUTIONS = ("apache-tvm", "apache-tvm-ffi", "numpy", "xgboost")


def main(job_file: Path) -> None:
    """Run the job and write its result beside the others."""
    fields = json.loads(job_file.read_text(encoding="utf-8"))
    job = tuners.Job(
        tuner=fields["tuner"],
        task_file=Path(fields["task_file"]),
        log_file=Path(fields["log_file"]),
        base_logs=[Path(path) for path in fields["base_logs"]],
        num_trials=fields["num_trials"],
        limit_secs=fields["limit_secs"],
        seed=fields["seed"],
    )
    load_before = os.getloadavg()
    started = time.monotonic()
    tuners.import_libraries(job.tuner)
    import_secs = time.monotonic() - started
    tuned = tuners.run(job)

    from tunewright.core.tvm_adapter.target import machine_info

    machine = machine_info()
    save_unit(
        UnitResult(
            key=UnitKey(fields["task"], job.seed, job.tuner),
            num_trials_asked=job.num_trials,
            num_threads=int(os.environ["TVM_NUM_THREADS"]),
            tuned=tuned,
            import_secs=import_secs,
            machine={**asdict(machine), "fingerprint": machine.fingerprint},
            versions=_versions(),
            load_before=load_before,
            load_after=os.getloadavg(),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
        Path(fields["result_file"]),
    )


def _versions() -> dict[str, str]:
    import tunewright

    versions = {name: importlib.metadata.version(name) for name in _DISTRIBUTIONS}
    return {"python": platform.python_version(), "tunewright": tunewright.__version__, **versions}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
