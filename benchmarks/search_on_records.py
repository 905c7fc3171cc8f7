"""What each part of the search brings: hundreds of sessions on design spaces that were timed whole.

    python benchmarks/search_on_records.py record --out DIR --tasks matmul-512,dense-int8
    python benchmarks/search_on_records.py compare --records DIR --out DIR2 --seeds 30
    python benchmarks/search_on_records.py rank --records DIR --log LOG [LOG ...]

`record` times every point of a task's design space that random draws find, `--passes` times (minutes to an
hour per task).
`compare` searches these spaces again and again, and looks the times up, with `--noise` on every sample.
The log starts empty. Only what concerns the search can be told apart like this; `ablation.py` has the rest.

After 32, 64, 128 and 256 trials: recorded time of the kernel that the session takes for its best, over the
space's best; geometric means over tasks, and each variant over the full tuner, paired by task and seed,
with 95 % intervals by bootstrap over the pairs. Trials: until within 3 % of the space's best, mean, where
sessions that never get there count as 256.

`rank` orders whole spaces by a cost model that learnt from logs (without trials of these tasks, where they
hold any), by the tile model, and by both as a search does, and compares with the median of all passes.
Beside them what a measurement is worth as a prediction: one pass against the mean of the others.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from recorded_spaces import ranking, recording, replay
from side_by_side.command_line import names_of
from side_by_side.tables import markdown_table
from side_by_side.tasks import available_tasks
from side_by_side.variants import FULL, SEARCH_TECHNIQUES, change_of, full_setup

_NUM_TRIALS = 256
_SHOWN = (32, 64, 128, 256)
_NEAR = 1.03
_VARIANTS = (FULL, *(f"without-{name}" for name in SEARCH_TECHNIQUES), "random")
_METRICS = {
    "pairwise_accuracy": "pairwise",
    "top_1_score": "top-1",
    "top_5_score": "top-5",
    "top_quarter_recall": "recall",
}
Curves = Mapping[tuple[str, int], npt.NDArray[np.float64]]


def main() -> int:
    args = _parse_args()
    if args.action == "record":
        args.out.mkdir(parents=True, exist_ok=True)
        for task in args.tasks:
            recording.record(task, args.out, num_passes=args.passes, num_threads=args.threads)
        return 0
    tasks = sorted({path.stem.partition(".")[0] for path in args.records.glob("*.sqlite")})
    if not tasks:
        print(f"error: {args.records} holds no recorded task (TASK.PASS.sqlite)", file=sys.stderr)
        return 2
    if args.action == "rank":
        recorded = {task: replay.load(args.records, task) for task in tasks}
        print(_ranking(recorded, args.log, num_seeds=args.seeds))
        return 0
    jobs = [
        (args.records, task, variant, seed, args.noise)
        for seed in range(args.seeds)
        for task in tasks
        for variant in args.variants
    ]
    with ProcessPoolExecutor() as processes:
        curves = list(processes.map(_curve, jobs))
    by_variant: dict[str, dict[tuple[str, int], npt.NDArray[np.float64]]] = {}
    for (_, task, variant, seed, _), curve in zip(jobs, curves, strict=True):
        by_variant.setdefault(variant, {})[task, seed] = np.array(curve)
    args.out.mkdir(parents=True, exist_ok=True)
    raw = {
        name: {f"{task}.{seed}": curve.tolist() for (task, seed), curve in some.items()}
        for name, some in by_variant.items()
    }
    (args.out / "curves.json").write_text(json.dumps(raw), encoding="utf-8")
    report = _report(by_variant, {task: len(_load(args.records, task)[0].secs) for task in tasks})
    (args.out / "report.md").write_text(report + "\n", encoding="utf-8")
    print(report)
    return 0


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    record = actions.add_parser("record", help="time the points of design spaces")
    record.add_argument("--out", type=Path, required=True)
    record.add_argument("--tasks", type=names_of(available_tasks()), default=available_tasks())
    record.add_argument("--threads", type=int, default=2)
    record.add_argument("--passes", type=int, default=3, help="how often each point is timed")
    compare = actions.add_parser("compare", help="search recorded spaces")
    compare.add_argument("--records", type=Path, required=True)
    compare.add_argument("--out", type=Path, required=True)
    compare.add_argument("--seeds", type=int, default=30)
    compare.add_argument("--noise", type=float, default=0.03)
    compare.add_argument("--variants", type=names_of(_VARIANTS), default=list(_VARIANTS))
    rank = actions.add_parser("rank", help="rank recorded spaces without timing them")
    rank.add_argument("--records", type=Path, required=True)
    rank.add_argument("--log", nargs="+", type=ranking.log_url, required=True, metavar="LOG")
    rank.add_argument("--seeds", type=int, default=5, help="models, of which the mean is shown")
    return parser.parse_args()


@cache
def _load(folder: Path, task: str) -> tuple[replay.RecordedTask, replay.RecordedSpace]:
    recorded = replay.load(folder, task)
    return recorded, replay.RecordedSpace(recorded)


def _curve(job: tuple[Path, str, str, int, float]) -> list[float]:
    """Recorded time over the space's best, after each of the trials."""
    folder, task, variant, seed, noise = job
    recorded, space = _load(folder, task)
    setup = change_of(variant)(full_setup(recorded.task.target, num_trials=_NUM_TRIALS, seed=seed))
    secs = replay.search(recorded, space, setup, noise=noise)
    secs += secs[-1:] * (_NUM_TRIALS - len(secs))  # the space may hold fewer
    best_secs = recorded.best_secs
    return [one / best_secs for one in secs]


def _ranking(recorded: Mapping[str, replay.RecordedTask], logs: Sequence[str], *, num_seeds: int) -> str:
    trials = ranking.training_trials(logs, list(recorded.values()))
    models = ranking.fit(trials, num_seeds=num_seeds)
    ranked = {name: ranking.rank(one, models) for name, one in recorded.items()}
    rows = [
        [name, by, *(f"{metrics[metric]:.3f}" for metric in _METRICS)]
        for name, by_ranker in ranked.items()
        for by, metrics in by_ranker.items()
    ]
    for by in next(iter(ranked.values())):
        means = [np.mean([by_ranker[by][metric] for by_ranker in ranked.values()]) for metric in _METRICS]
        rows.append(["mean", by, *(f"{mean:.3f}" for mean in means)])
    tasks = len({trial.record.task_key for trial in trials})
    learnt = f"Learnt from {len(trials)} trials of {tasks} other tasks; mean of {num_seeds} models."
    return f"{learnt}\n\n{markdown_table(['task', 'ranked by', *_METRICS.values()], rows)}"


def _report(by_variant: Mapping[str, Curves], num_points: Mapping[str, int]) -> str:
    head = ["variant", *(f"after {n}" for n in _SHOWN), *(f"/ {FULL}, after {n}" for n in _SHOWN), "trials"]
    rows = []
    for variant, curves in by_variant.items():
        behind = {n: np.log([curve[n - 1] for curve in curves.values()]) for n in _SHOWN}
        cells = [f"{np.exp(behind[n].mean()):.3f}" for n in _SHOWN]
        for n in _SHOWN:
            full = by_variant.get(FULL, {})
            ratios = [np.log(curve[n - 1] / full[key][n - 1]) for key, curve in curves.items() if key in full]
            cells.append(_with_interval(np.array(ratios)) if ratios and variant != FULL else "")
        trials = [int(np.argmax(np.append(curve <= _NEAR, True))) + 1 for curve in curves.values()]
        rows.append([variant, *cells, f"{np.minimum(trials, _NUM_TRIALS).mean():.0f}"])
    by_task = [["task", "points", *(f"after {n}" for n in _SHOWN)]]
    for task, count in num_points.items():
        mine = [curve for (name, _), curve in by_variant.get(FULL, {}).items() if name == task]
        if mine:
            means = [f"{np.exp(np.log([curve[n - 1] for curve in mine]).mean()):.3f}" for n in _SHOWN]
            by_task.append([task, str(count), *means])
    sessions = len(next(iter(by_variant.values())))
    return "\n\n".join(
        [
            f"{sessions} sessions of each variant; time over the space's best.",
            markdown_table(head, rows),
            "The full tuner by task:",
            markdown_table(by_task[0], by_task[1:]),
        ]
    )


def _with_interval(logs: npt.NDArray[np.float64]) -> str:
    rng = np.random.default_rng(0)
    means = rng.choice(logs, (2000, len(logs))).mean(axis=1)
    low, high = np.exp(np.quantile(means, (0.025, 0.975)))
    return f"{np.exp(logs.mean()):.3f} ({low:.3f} – {high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
