"""Tunewright against TVM's own tuner: same tasks, threads, design space and number of trials, interleaved.

    python benchmarks/vs_metaschedule.py --quick --out DIR           one task, 64 trials, about 5 minutes
    python benchmarks/vs_metaschedule.py --out DIR                   everything: many hours, can be resumed
    python benchmarks/vs_metaschedule.py --out DIR --time-budget 7200
    python benchmarks/vs_metaschedule.py --out DIR --report-only

The tuners: `tunewright` starts with an empty log, `tunewright-log` with one that holds only what `tunewright`
measured of the other tasks; `tvm` is MetaSchedule as shipped, `tvm-patched` the same without the import that
fills most of its time (see side_by_side/metaschedule.py). TVM needs the package cloudpickle.

With --session-limit, a session of TVM's ends with the batch that is under way then; its seconds are
extrapolated from its trials. A run of ours that has measured all of its space ends, and its seconds count
as they are.

Every run is a process of its own and leaves a JSON file in DIR/units; a run whose file exists is not done
again. Its clock starts when the tuner does, with TVM imported and the task made; our worker processes and
TVM's start within. The final kernels of all tuners are timed again, interleaved, in fresh processes. Raw
files, tables (report.md), figures (plots/) and a summary (summary.json) are in DIR.
"""

import argparse
import sys
from dataclasses import replace

from side_by_side import command_line, comparison
from side_by_side.tasks import available_tasks
from side_by_side.tuners import PEERS

_QUICK_TASK = "matmul-512"


def main() -> int:
    args = _parse_args()
    experiment = command_line.experiment_of(args)
    if args.quick:
        experiment = replace(experiment, tasks=[_QUICK_TASK], num_seeds=1, num_trials=64)
    return command_line.run(experiment, args, comparison.write_report)


def _parse_args() -> argparse.Namespace:
    parser = command_line.make_parser(
        __doc__, tuners=PEERS, tasks=available_tasks(), num_seeds=5, num_trials=256
    )
    parser.add_argument("--quick", action="store_true", help="one task, one seed, 64 trials")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
