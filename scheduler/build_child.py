"""`python -m tunewright.scheduler.build_child FOLDER`: compile a stitched model in a process that may die.

FOLDER holds `job.json` (target, num_jobs) and `module.json`; the shared library is written beside them. An
error is written to `error.txt`, its class name on the first line; exit status 1.
"""

import json
import sys
from pathlib import Path

from tunewright.core.errors import TunewrightError
from tunewright.core.types import TargetSpec
from tunewright.scheduler.manifest import LIBRARY_FILE

JOB_FILE = "job.json"
MODULE_FILE = "module.json"
ERROR_FILE = "error.txt"


def main(folder: Path) -> int:
    """Build; returns the exit status."""
    from tunewright.core.tvm_adapter.graph_build import build_library

    job = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
    target = TargetSpec(**{**job["target"], "mattr": tuple(job["target"]["mattr"])})
    mod_json = (folder / MODULE_FILE).read_text(encoding="utf-8")
    try:
        build_library(mod_json, target, folder / LIBRARY_FILE, num_jobs=job["num_jobs"])
    except (TunewrightError, RuntimeError) as exc:  # ours, or TVM's InternalError
        (folder / ERROR_FILE).write_text(f"{type(exc).__name__}\n{exc}", encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
