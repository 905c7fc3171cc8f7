"""How should the cost model learn? Held-out ranking on logs of real measurements.

    python benchmarks/cost_model_objectives.py --log LOG [LOG ...] --work-dir WORK_DIR [WORK_DIR ...]

LOG is a tuning log of ours, a file or a URL. WORK_DIR holds a `database_workload.json` and a
`database_tuning_record.json` as TVM's JSONDatabase writes them; its traces are replayed in this process, some
20 ms each: use it on logs that you trust. A candidate that several logs hold counts once.

Three tables, each over seeds of split and model:
objectives   models that learnt from other tasks rank the tasks that were held out; then again with tasks of
             equal arithmetic held out together, since the same layer at another number of threads, or from
             another importer, is hardly an unseen one;
sessions     a fifth of the tasks is tuned from scratch: after so many trials of each, the rest is ranked by
             a base model alone, by the base boosted on by the session's trials (for a model from a file,
             without its records), by one refit on everything, and by models of the session or the task
             alone. First with the trials in random order, then in the order of the log, where a search has
             chosen the later ones;
fit          CPU seconds of one fit on one thread.

Differences to what is kept are paired by task, after the mean over seeds; their standard errors are over
tasks, so that neither seeds nor a task with many trials count as further evidence.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from tunewright.cli.settings import log_url
from tunewright.core.keys import digest
from tunewright.core.types import (
    Candidate,
    CandidateKey,
    EvaluatorConfig,
    FailureKind,
    FloatArray,
    MachineInfo,
    MeasureFailure,
    MeasureSuccess,
    Origin,
    RecordedTrial,
    TaskKey,
    TuningRecord,
)
from tunewright.cost_model import FeatureBatch, TrainingSet, make_training_set
from tunewright.cost_model.evaluation import FitPredict, mean_metrics, rank_metrics, rank_unseen_tasks
from tunewright.cost_model.pooling import pool_rows
from tunewright.cost_model.xgboost_model import (
    MIN_LABEL,
    NUM_ROUNDS,
    XGB_PARAMS,
    XGBoostCostModel,
    fit_predict,
)
from tunewright.tuning_logs import TuningLog

_MACHINE = MachineInfo("one machine per log", 1, False, "unknown", "unknown", "", "", "")
_METRICS = ("pairwise_accuracy", "top_1_score", "top_5_score", "top_quarter_recall", "spearman")
_TITLES = ("pairwise", "top-1", "top-5", "recall", "Spearman")
_REVEALED = (8, 16, 32, 64)
_MIN_RANKED = 16
_NUM_FOLDS = 5
_FAILED_SECS = 1e9  # TVM stores 1e10 for a candidate that failed
_MAX_TRIALS = 200_000
# In the row of the largest values of all stores, the columns that count arithmetic operations.
_ARITHMETIC = slice(0, 16)

PerGroup = dict[int, npt.NDArray[np.float64]]

OBJECTIVES = (
    "reg:logistic",
    "reg:squarederror",
    "reg:squarederror of the logarithm",
    "rank:pairwise",
    "rank:ndcg",
)
KEPT = "centred squared error of the logarithm (kept)"
KEPT_IN_SESSIONS = "refit on all (kept)"
SESSION_MODELS = ("base alone", "base boosted on", KEPT_IN_SESSIONS, "session alone", "task alone")


def fit_predict_with(objective: str, *, seed: int) -> FitPredict:
    """As the cost model fits, but for the objective."""

    def trained_and_asked(train: TrainingSet, test: TrainingSet) -> npt.NDArray[np.float64]:
        order = np.argsort(train.group, kind="stable")  # rankers want their queries in one piece
        rows, label, group = pool_rows(train.features)[order], train.label[order], train.group[order]
        name, _, of_logarithm = objective.partition(" ")
        params = {**XGB_PARAMS, "objective": name, "seed": seed, "nthread": 1}
        if name.startswith("rank:"):
            del params["base_score"]
            params |= {"lambdarank_pair_method": "mean", "lambdarank_num_pair_per_sample": 8}
            if name == "rank:ndcg":
                label = np.round(label * 31)  # it wants grades
                params["ndcg_exp_gain"] = False
            data = xgb.DMatrix(rows, label=label, qid=group, nthread=1)
        else:
            if of_logarithm:
                label = np.log2(np.maximum(label, MIN_LABEL))
            mean = float(label.mean())
            params["base_score"] = float(np.clip(mean, 0.01, 0.99)) if name == "reg:logistic" else mean
            data = xgb.DMatrix(rows, label=label, nthread=1)
        booster = xgb.train(params, data, num_boost_round=NUM_ROUNDS)
        scores = booster.inplace_predict(pool_rows(test.features), predict_type="margin")
        return np.asarray(scores, dtype=np.float64)

    return trained_and_asked


def compare_objectives(training_set: TrainingSet, title: str, *, num_seeds: int) -> Iterator[str]:
    """Means weighted by trials ± standard deviation over seeds; means over tasks; the paired difference."""
    yield (
        f"\n{title:46}"
        + "".join(f"{metric:>15}" for metric in _TITLES)
        + ("   by task: pairwise  top-1  top-5   pairwise - kept")
    )
    kept: PerGroup = {}
    for objective in (KEPT, *OBJECTIVES):
        means: list[list[float]] = []
        found: dict[int, list[list[float]]] = {}
        for seed in range(num_seeds):
            learner = fit_predict(seed=seed) if objective == KEPT else fit_predict_with(objective, seed=seed)
            rankings = rank_unseen_tasks(training_set, learner, seed=seed)
            means.append([mean_metrics(rankings)[metric] for metric in _METRICS])
            for ranking in rankings:
                found.setdefault(ranking.group, []).append([ranking.metrics[m] for m in _METRICS])
        per_group = {group: np.mean(values, axis=0) for group, values in found.items()}
        kept = kept or per_group
        cells = "".join(
            f"{mean:8.3f} ± {std:.3f}" for mean, std in zip(np.mean(means, 0), np.std(means, 0), strict=True)
        )
        by_task = np.mean(list(per_group.values()), axis=0)
        yield (
            f"  {objective:44}{cells}{by_task[0]:20.3f}{by_task[1]:7.3f}{by_task[2]:7.3f}"
            f"   {_paired(per_group, kept)}"
        )


def without_lookalikes(training_set: TrainingSet) -> TrainingSet:
    """The same with one task key for all groups whose heaviest store does the same number of operations."""
    work = pool_rows(training_set.features)[:, _ARITHMETIC].max(axis=1)
    keys = []
    for group in range(len(training_set.group_tasks)):
        # A median, for a schedule may move a few operations between stores.
        median = float(np.median(work[training_set.group == group]))
        keys.append(TaskKey(f"{median:.1f}"))
    return replace(training_set, group_tasks=tuple(keys))


def _paired(per_group: PerGroup, kept: PerGroup) -> str:
    difference = np.array([values[0] - kept[group][0] for group, values in per_group.items()])
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return f"{difference.mean():+.3f} ± {error:.3f} ({len(difference)} tasks)"


@dataclass(frozen=True)
class Revealed:
    """One task of a simulated session: indices of the trials that it has measured, and of the rest."""

    known: npt.NDArray[np.intp]
    rest: npt.NDArray[np.intp]


def simulate_session(
    training_set: TrainingSet,
    held_out: npt.NDArray[np.bool_],
    num_known: int,
    *,
    is_shuffled: bool,
    seed: int,
) -> Iterator[tuple[int, str, list[float]]]:
    """(task, model, metrics) of each held-out task with enough trials."""
    rng = np.random.default_rng(seed)
    tasks = {}
    for group in np.unique(training_set.group[held_out]):
        members = np.flatnonzero(training_set.group == group)
        if is_shuffled:
            members = rng.permutation(members)
        tasks[int(group)] = Revealed(members[:num_known], members[num_known:])
    of_session = _mask(training_set, np.concatenate([task.known for task in tasks.values()]))
    session = training_set.subset(of_session)
    base = XGBoostCostModel(seed=seed).fit(training_set.subset(~held_out))
    boosted, refit, alone = (
        XGBoostCostModel.from_snapshot(base, seed=seed),
        XGBoostCostModel(seed=seed),
        XGBoostCostModel(seed=seed),
    )
    boosted.fit(session)
    refit.fit(training_set.subset(~held_out | of_session))
    alone.fit(session)
    base_alone = XGBoostCostModel.from_snapshot(base, seed=seed)
    for group, task in tasks.items():
        if len(task.rest) < _MIN_RANKED:
            continue
        of_task = XGBoostCostModel(seed=seed)
        of_task.fit(training_set.subset(_mask(training_set, task.known)))
        rest = training_set.subset(_mask(training_set, task.rest))
        models = (base_alone, boosted, refit, alone, of_task)
        for name, model in zip(SESSION_MODELS, models, strict=True):
            metrics = rank_metrics(rest.label, model.predict(rest.features).score)
            if metrics:
                yield group, name, [metrics[metric] for metric in _METRICS]


def compare_in_sessions(training_set: TrainingSet, *, is_shuffled: bool, num_seeds: int) -> Iterator[str]:
    """Means over tasks, and the paired difference."""
    title = f"sessions, trials in {'random' if is_shuffled else 'recorded'} order"
    yield f"\n{title:40}" + "".join(f"{title:>10}" for title in _TITLES) + "   pairwise - kept"
    task = np.array([training_set.group_tasks[group] for group in training_set.group])
    for num_known in _REVEALED:
        found: dict[str, dict[int, list[list[float]]]] = {name: {} for name in SESSION_MODELS}
        for seed in range(num_seeds):
            tasks = np.random.default_rng(seed).permutation(np.unique(task))
            for fold in range(_NUM_FOLDS):
                held_out = np.isin(task, tasks[fold::_NUM_FOLDS])
                rankings = simulate_session(
                    training_set, held_out, num_known, is_shuffled=is_shuffled, seed=seed
                )
                for group, name, metrics in rankings:
                    found[name].setdefault(group, []).append(metrics)
        per_model = {
            name: {group: np.mean(values, axis=0) for group, values in of_group.items()}
            for name, of_group in found.items()
        }
        yield f"  {num_known} trials of each task are known"
        for name, per_group in per_model.items():
            cells = "".join(f"{value:10.3f}" for value in np.mean(list(per_group.values()), axis=0))
            yield f"    {name:36}{cells}   {_paired(per_group, per_model[KEPT_IN_SESSIONS])}"


def fit_secs(training_set: TrainingSet) -> Iterator[str]:
    """CPU seconds of fits on so many candidates, drawn with repetition; median of five."""
    yield "\nfit"
    base = XGBoostCostModel(seed=0).fit(training_set)
    for what, num_candidates, make in (
        ("base", 8192, lambda: XGBoostCostModel(seed=0)),
        ("base", 20_000, lambda: XGBoostCostModel(seed=0)),
        ("boosting on", 256, lambda: XGBoostCostModel.from_snapshot(base, seed=0)),
        ("boosting on", 1024, lambda: XGBoostCostModel.from_snapshot(base, seed=0)),
    ):
        secs = _fit_secs(_draw(training_set, num_candidates), make)
        yield f"  {what:12}{num_candidates:8} candidates {secs:8.3f} s"


def _fit_secs(training_set: TrainingSet, make: Callable[[], XGBoostCostModel]) -> float:
    elapsed = []
    for _ in range(5):
        model = make()
        start = time.process_time()
        model.fit(training_set)
        elapsed.append(time.process_time() - start)
    return float(np.median(elapsed))


def _draw(training_set: TrainingSet, num_candidates: int) -> TrainingSet:
    draw = np.sort(np.random.default_rng(0).integers(len(training_set), size=num_candidates))
    starts = np.searchsorted(training_set.features.owner, np.arange(1, len(training_set)))
    arrays = np.split(training_set.features.rows, starts)
    drawn = [arrays[index] for index in draw]
    owner = np.repeat(np.arange(len(draw)), [len(array) for array in drawn])
    features = FeatureBatch(np.concatenate(drawn), owner, training_set.features.tiles[draw])
    return TrainingSet(features, training_set.label[draw], training_set.group[draw], training_set.group_tasks)


def _mask(training_set: TrainingSet, indices: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(len(training_set), dtype=np.bool_)
    mask[indices] = True
    return mask


def read_log(url: str) -> list[RecordedTrial]:
    """All trials of a tuning log that have features."""
    with TuningLog.open(log_url(url), read_only=True) as log:
        return log.training_trials(mcpu=None, limit=_MAX_TRIALS)


def read_work_dir(work_dir: Path) -> Iterator[RecordedTrial]:
    """Replay a MetaSchedule log and compute the features of each of its records."""
    from tunewright.core import tvm_adapter  # noqa: F401  # prepares the import of tvm
    import tvm  # isort: skip
    from tvm.s_tir import Schedule, Trace
    from tvm.s_tir import meta_schedule as ms

    lines = (work_dir / "database_workload.json").read_text().splitlines()
    mods = [ms.database.Workload.from_json(json.loads(line)).mod for line in lines]
    contexts: dict[int, ms.TuneContext] = {}
    extractor = ms.feature_extractor.PerStoreFeature()
    lines = (work_dir / "database_tuning_record.json").read_text().splitlines()
    for index, line in enumerate(lines):
        workload, (trace, run_secs, target, _) = json.loads(line)
        schedule = Schedule(mods[workload], debug_mask="none", error_render_level="fast")
        Trace.apply_json_to_schedule(trace, schedule)
        if workload not in contexts:
            contexts[workload] = ms.TuneContext(
                mods[workload], target=tvm.target.Target(target), num_threads=1
            )
        (rows,) = extractor.extract_from(contexts[workload], [ms.MeasureCandidate(schedule, [])])
        task_key = TaskKey(digest(work_dir.name, str(workload)))
        yield _trial(index, task_key, json.dumps(trace), run_secs, rows.numpy().astype(np.float32))


def _trial(
    index: int, task_key: TaskKey, trace_json: str, run_secs: Sequence[float], features: FloatArray
) -> RecordedTrial:
    if max(run_secs) < _FAILED_SECS:
        result: MeasureSuccess | MeasureFailure = MeasureSuccess(tuple(run_secs), 0.0, 0.0, is_verified=False)
    else:
        result = MeasureFailure(FailureKind.RUN, "failed when it was tuned", 0.0)
    record = TuningRecord(
        session_id="imported",
        trial_index=index,
        candidate=Candidate(task_key, trace_json, Origin.REPLAY),
        result=result,
        evaluator=EvaluatorConfig(),
        machine=_MACHINE,
        strategy="metaschedule",
        seed=0,
        finished_at=datetime.now(UTC),
        code_version="",
    )
    return RecordedTrial(index, record, features)


def _distinct(trials: Iterable[RecordedTrial]) -> list[RecordedTrial]:
    first: dict[tuple[CandidateKey, str], RecordedTrial] = {}
    for trial in trials:
        first.setdefault((trial.record.candidate.key, trial.record.machine.fingerprint), trial)
    return list(first.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--log", nargs="+", default=[], metavar="LOG")
    parser.add_argument("--work-dir", type=Path, nargs="+", default=[], metavar="WORK_DIR")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()

    trials = [trial for url in args.log for trial in read_log(url)]
    trials += [trial for work_dir in args.work_dir for trial in read_work_dir(work_dir)]
    trials.sort(key=lambda trial: trial.record.finished_at)  # of a work directory: its own order
    training_set = make_training_set(_distinct(trials))
    num_tasks = len(set(training_set.group_tasks))
    if num_tasks < _NUM_FOLDS:
        sys.exit(f"{len(training_set)} trials of {num_tasks} tasks: give logs of {_NUM_FOLDS} tasks or more")
    num_failed = int((training_set.label == 0).sum())
    print(f"{len(training_set)} trials of {num_tasks} tasks, {num_failed} failed, {args.seeds} seeds")
    for table in (
        compare_objectives(training_set, "objectives, by task", num_seeds=args.seeds),
        compare_objectives(
            without_lookalikes(training_set), "objectives, by tasks of equal arithmetic", num_seeds=args.seeds
        ),
        compare_in_sessions(training_set, is_shuffled=True, num_seeds=args.seeds),
        compare_in_sessions(training_set, is_shuffled=False, num_seeds=args.seeds),
        fit_secs(training_set),
    ):
        for line in table:
            print(line, flush=True)


if __name__ == "__main__":
    main()
