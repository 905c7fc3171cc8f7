"""Which objective should the cost model be trained with? Held-out ranking on real MetaSchedule logs.

    python benchmarks/cost_model_objectives.py --data WORK_DIR [WORK_DIR ...]

Each WORK_DIR holds a `database_workload.json` and a `database_tuning_record.json` as TVM's JSONDatabase
writes them. Traces are replayed in this process, some 20 ms each: use it on logs that you trust.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from tunewright.core import tvm_adapter  # noqa: F401  # prepares the import of tvm
from tunewright.core.keys import digest
from tunewright.core.types import (
    Candidate,
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
from tunewright.cost_model import TrainingSet, make_training_set
from tunewright.cost_model.evaluation import FitPredict, evaluate, rank_metrics
from tunewright.cost_model.pooling import pool_rows
from tunewright.cost_model.xgboost_model import NUM_ROUNDS, XGB_PARAMS

_MACHINE = MachineInfo("one machine per log", 1, False, "unknown", "unknown", "", "", "")
_METRICS = ("spearman", "pairwise_accuracy", "top_quarter_recall", "top_1_score", "top_5_score")
_KNOWN_TRIALS = 24
_MIN_SESSION_TRIALS = 90
_FAILED_SECS = 1e9  # TVM stores 1e10 for a candidate that failed


@dataclass(frozen=True)
class Variant:
    """An objective, and the floor of the sample weights max(label, floor); 1 means equal weights."""

    objective: str
    weight_floor: float = 1.0

    def __str__(self) -> str:
        return self.objective + (f", weight floor {self.weight_floor:g}" if self.weight_floor < 1 else "")


VARIANTS = (
    Variant("reg:logistic"),
    Variant("reg:logistic", 0.4),
    Variant("reg:logistic", 0.2),
    Variant("reg:squarederror"),
    Variant("reg:squarederror", 0.2),
    Variant("rank:pairwise"),
    Variant("rank:ndcg"),
)


def fit_predict_with(variant: Variant, *, seed: int, num_threads: int) -> FitPredict:
    """As the cost model fits, but for the objective and the weights."""

    def fit_predict(train: TrainingSet, test: TrainingSet) -> npt.NDArray[np.float64]:
        order = np.argsort(train.group, kind="stable")  # rankers want their queries in one piece
        rows, label, group = pool_rows(train.features)[order], train.label[order], train.group[order]
        columns = np.flatnonzero(np.ptp(rows, axis=0) > 0)
        params = {**XGB_PARAMS, "objective": variant.objective, "seed": seed, "nthread": num_threads}
        if variant.objective.startswith("rank:"):
            params |= {"lambdarank_pair_method": "mean", "lambdarank_num_pair_per_sample": 8}
            if variant.objective == "rank:ndcg":
                label = np.round(label * 31)  # it wants grades
                params["ndcg_exp_gain"] = False
            data = xgb.DMatrix(rows[:, columns], label=label, qid=group)
        else:
            params["base_score"] = float(np.clip(label.mean(), 0.01, 0.99))
            data = xgb.DMatrix(rows[:, columns], label=label, weight=np.maximum(label, variant.weight_floor))
        booster = xgb.train(params, data, num_boost_round=NUM_ROUNDS)
        scores = booster.inplace_predict(pool_rows(test.features)[:, columns], predict_type="margin")
        return np.asarray(scores, dtype=np.float64)

    return fit_predict


def evaluate_in_session(training_set: TrainingSet, fit_predict: FitPredict, *, seed: int) -> dict[str, float]:
    """As in a session: a task of which 24 trials are known, and all trials of the other tasks.

    Mean over the tasks with at least 90 trials; the rest of each is ranked.
    """
    rng = np.random.default_rng(seed)
    per_task = []
    for group in np.unique(training_set.group):
        members = np.flatnonzero(training_set.group == group)
        if len(members) < _MIN_SESSION_TRIALS:
            continue
        held_out = np.zeros(len(training_set), dtype=np.bool_)
        held_out[rng.permutation(members)[_KNOWN_TRIALS:]] = True
        test = training_set.subset(held_out)
        per_task.append(rank_metrics(test.label, fit_predict(training_set.subset(~held_out), test)))
    return {
        f"in_session_{name}": float(np.mean([m[name] for m in per_task])) for name in _METRICS if per_task
    }


def read_work_dir(work_dir: Path) -> Iterator[RecordedTrial]:
    """Replay a MetaSchedule log and compute the features of each of its records."""
    import tvm
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


def compare(training_set: TrainingSet, *, num_seeds: int, num_threads: int) -> Iterator[str]:
    """The table, line by line: mean +- standard deviation over seeds of split and model."""
    yield f"{'':32}" + "".join(f"{metric:>19}" for metric in _METRICS)
    all_results: dict[Variant, list[dict[str, float]]] = {}
    for variant in VARIANTS:
        for seed in range(num_seeds):
            fit_predict = fit_predict_with(variant, seed=seed, num_threads=num_threads)
            result = evaluate(training_set, fit_predict, seed=seed)
            result |= evaluate_in_session(training_set, fit_predict, seed=seed)
            all_results.setdefault(variant, []).append(result)
    for split in ("within_task", "by_task", "in_session"):
        yield f"{split}:"
        for variant, results in all_results.items():
            columns = [
                [result.get(f"{split}_{metric}", math.nan) for result in results] for metric in _METRICS
            ]
            cells = "".join(f"{np.mean(values):12.3f} ± {np.std(values):.3f}" for values in columns)
            yield f"  {variant!s:30}{cells}"


def fit_secs(training_set: TrainingSet, num_candidates: int, num_threads: int) -> float:
    """Median wall seconds of a fit on so many candidates, drawn with repetition."""
    from tunewright.cost_model.types import FeatureBatch
    from tunewright.cost_model.xgboost_model import XGBoostCostModel

    draw = np.random.default_rng(0).integers(len(training_set), size=num_candidates)
    starts = np.searchsorted(training_set.features.owner, np.arange(1, len(training_set)))
    arrays = np.split(training_set.features.rows, starts)
    sample = TrainingSet(
        FeatureBatch.from_arrays([arrays[index] for index in draw]),
        training_set.label[draw],
        training_set.group[draw],
    )
    elapsed = []
    for _ in range(5):
        start = time.perf_counter()
        XGBoostCostModel(seed=0, num_threads=num_threads).fit(sample)
        elapsed.append(time.perf_counter() - start)
    return float(np.median(elapsed))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="WORK_DIR")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    training_set = make_training_set([trial for work_dir in args.data for trial in read_work_dir(work_dir)])
    print(f"{len(training_set)} records of {training_set.n_groups} tasks, {args.seeds} seeds")
    for line in compare(training_set, num_seeds=args.seeds, num_threads=args.threads):
        print(line, flush=True)
    for num_candidates in (300, 3000):
        secs = fit_secs(training_set, num_candidates, args.threads)
        print(f"fit of {num_candidates} candidates on {args.threads} threads: {secs:.3f} s")


if __name__ == "__main__":
    main()
