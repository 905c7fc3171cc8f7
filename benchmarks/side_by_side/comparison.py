"""The report of the comparison with TVM: tables, figures and a summary, from the raw files of a folder."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from side_by_side import figures
from side_by_side.curves import NEVER, Reach, Spread, neutral_scale, paired_ratios, ratio, reach, spread
from side_by_side.experiment import Experiment
from side_by_side.goals import Verdict, judge
from side_by_side.results import NOT_FAILED, UnitResult
from side_by_side.tables import conditions, markdown_table, shown, shown_spread
from side_by_side.tuners import LABELS, OURS, OURS_WITH_LOG, PATCHED, SHIPPED

_ACTIVITIES = ("build", "run", "search", "model", "other")


@dataclass(frozen=True, slots=True)
class Group:
    """All runs of one task: `units` and `neutral_secs` by tuner, then by seed."""

    task: str
    units: Mapping[str, Mapping[int, UnitResult]]
    neutral_secs: Mapping[str, Mapping[int, float]]
    wrong: Sequence[str]

    def per_seed(self, tuner: str, value: Callable[[UnitResult], float]) -> dict[int, float]:
        return {seed: value(unit) for seed, unit in self.units.get(tuner, {}).items()}

    def scale(self, tuner: str, seed: int) -> float | None:
        """From the tuner's own clock to the neutral one, None where its kernel was not timed."""
        neutral_secs = self.neutral_secs.get(tuner, {}).get(seed)
        unit = self.units.get(tuner, {}).get(seed)
        return None if neutral_secs is None or unit is None else neutral_scale(unit.tuned, neutral_secs)


def write_report(experiment: Experiment) -> str:
    """Write report.md, summary.json and plots/ into the experiment's folder; returns the report."""
    groups = [group for task in experiment.tasks if (group := load_group(experiment, task)).units]
    columns = ratio_columns(groups)
    verdicts = judge(columns)
    text = "\n\n".join(
        [
            conditions([unit for group in groups for runs in group.units.values() for unit in runs.values()]),
            _goals_section(verdicts),
            _seconds_section(groups, columns),
            _latency_section(groups, columns),
            _reach_section(groups, columns),
            _split_section(groups),
            _failures_section(groups),
        ]
    )
    experiment.out.mkdir(parents=True, exist_ok=True)
    (experiment.out / "report.md").write_text(text + "\n", encoding="utf-8")
    summary = {
        "ratios": {name: {t: asdict(s) for t, s in tasks.items()} for name, tasks in columns.items()},
        "goals": [asdict(verdict) for verdict in verdicts],
    }
    (experiment.out / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    for group in groups:
        figures.draw(group.task, _scaled_runs(group), experiment.out / "plots")
    return text


def load_group(experiment: Experiment, task: str) -> Group:
    """What there is of a task."""
    units: dict[str, dict[int, UnitResult]] = {}
    neutral_secs: dict[str, dict[int, float]] = {}
    wrong: list[str] = []
    for seed in range(experiment.num_seeds):
        for unit in experiment.units(task, seed):
            units.setdefault(unit.key.tuner, {})[seed] = unit
        times = experiment.neutral_times(task, seed)
        for tuner, secs in times.secs.items() if times else ():
            neutral_secs.setdefault(tuner, {})[seed] = secs
        for tuner, problem in times.wrong.items() if times else ():
            wrong.append(f"{tuner}, seed {seed}: {problem}")
    return Group(task, units, neutral_secs, wrong)


def ratio_columns(groups: Sequence[Group]) -> dict[str, dict[str, Spread]]:
    """Every ratio ours / theirs, paired by seed: column -> task -> spread over seeds."""
    columns: dict[str, dict[str, Spread]] = {}
    for group in groups:
        for column, values in _ratios_of(group).items():
            if (found := spread(values)) is not None:
                columns.setdefault(column, {})[group.task] = found
    return columns


def _ratios_of(group: Group) -> dict[str, list[float]]:
    seconds = {t: group.per_seed(t, lambda unit: unit.secs_for_all_trials) for t in LABELS}
    search = {t: group.per_seed(t, _search_ms_per_trial) for t in (OURS, PATCHED)}
    latency = {t: dict(group.neutral_secs.get(t, {})) for t in LABELS}
    ratios = {
        "secs_vs_shipped": paired_ratios(seconds[OURS], seconds[SHIPPED]),
        "secs_vs_patched": paired_ratios(seconds[OURS], seconds[PATCHED]),
        "log_secs_vs_patched": paired_ratios(seconds[OURS_WITH_LOG], seconds[PATCHED]),
        "latency_vs_shipped": paired_ratios(latency[OURS], latency[SHIPPED]),
        "latency_vs_patched": paired_ratios(latency[OURS], latency[PATCHED]),
        "log_latency_vs_patched": paired_ratios(latency[OURS_WITH_LOG], latency[PATCHED]),
        "search_vs_patched": paired_ratios(search[OURS], search[PATCHED]),
        "overhead": list(group.per_seed(OURS, lambda unit: unit.overhead_ratio).values()),
    }
    for prefix, tuner in (("", OURS), ("log_", OURS_WITH_LOG)):
        ratios |= {prefix + name: values for name, values in _reach_ratios(group, tuner).items()}
    return ratios


def _reach_ratios(group: Group, tuner: str) -> dict[str, list[float]]:
    """Until TVM patched's final latency is reached, against its whole session and against its own moment.

    `reach_median_*`: until the median of its final latencies over the seeds; `reach_own_clock_*`: with times
    as each tuner measured them itself, unscaled.
    """
    theirs, their_secs = group.units.get(PATCHED, {}), group.neutral_secs.get(PATCHED, {})
    median_secs = statistics.median(their_secs.values()) if their_secs else math.nan
    columns: dict[str, list[float]] = {}
    for seed, unit in group.units.get(tuner, {}).items():
        scale, their_scale = group.scale(tuner, seed), group.scale(PATCHED, seed)
        if scale is None or their_scale is None:
            continue
        peer = theirs[seed]
        session = Reach(peer.num_trials_asked, peer.secs_for_all_trials)
        own_clock_best = peer.tuned.best_secs
        ours = reach(unit.tuned, their_secs[seed], scale)
        found = {
            "reach": (ours, session),
            "reach_strict": (ours, reach(peer.tuned, their_secs[seed] * (1 + 1e-9), their_scale)),
            "reach_median": (reach(unit.tuned, median_secs, scale), session),
            "reach_own_clock": (
                reach(unit.tuned, own_clock_best) if own_clock_best is not None else NEVER,
                session,
            ),
        }
        for name, (mine, other) in found.items():
            columns.setdefault(f"{name}_trials", []).append(ratio(mine.trials, other.trials))
            columns.setdefault(f"{name}_secs", []).append(ratio(mine.secs, other.secs))
    return columns


def _goals_section(verdicts: Sequence[Verdict]) -> str:
    rows = [
        [
            verdict.goal.text,
            f"≤ {verdict.goal.limit:.3g}",
            "-" if verdict.value is None else shown(verdict.value, "{:.3f}"),
            {True: "met", False: "**not met**", None: "-"}[verdict.is_met],
            verdict.note,
        ]
        for verdict in verdicts
    ]
    return "## Goals\n\n" + markdown_table(["ours / theirs", "goal", "measured", "", "of"], rows)


def _seconds_section(groups: Sequence[Group], columns: Mapping[str, Mapping[str, Spread]]) -> str:
    rows = [
        [
            group.task + _all_there_are(group),
            *(_of(group.per_seed(t, lambda unit: unit.secs_for_all_trials), "{:.1f}") for t in LABELS),
            *(_cell(columns, name, group.task) for name in ("secs_vs_shipped", "secs_vs_patched")),
            *(_of(group.per_seed(t, _trials_per_sec), "{:.2f}") for t in (OURS, PATCHED)),
        ]
        for group in groups
    ]
    head = ["task", *LABELS.values(), "ours / shipped", "ours / patched", "trials/s, ours", "patched"]
    return "## Seconds for all trials\n\n" + markdown_table(head, rows)


def _latency_section(groups: Sequence[Group], columns: Mapping[str, Mapping[str, Spread]]) -> str:
    names = ("latency_vs_shipped", "latency_vs_patched", "log_latency_vs_patched")
    rows = [
        [
            group.task,
            *(_of({s: 1e3 * v for s, v in group.neutral_secs.get(t, {}).items()}, "{:.4f}") for t in LABELS),
            *(_cell(columns, name, group.task) for name in names),
        ]
        for group in groups
    ]
    head = ["task", *LABELS.values(), "ours / shipped", "ours / patched", "ours with log / patched"]
    return "## Latency of the final kernel (ms), timed side by side\n\n" + markdown_table(head, rows)


def _reach_section(groups: Sequence[Group], columns: Mapping[str, Mapping[str, Spread]]) -> str:
    sections = []
    for prefix, label in (("", LABELS[OURS]), ("log_", LABELS[OURS_WITH_LOG])):
        names = [
            f"{prefix}{kind}_{unit}"
            for kind in ("reach", "reach_strict", "reach_median", "reach_own_clock")
            for unit in ("secs", "trials")
        ]
        rows = [[group.task, *(_cell(columns, name, group.task) for name in names)] for group in groups]
        head = ["task", "seconds", "trials"]
        head += ["seconds / its own moment", "trials / its own moment"]
        head += ["seconds, median latency", "trials, median latency"]
        head += ["seconds, own clocks", "trials, own clocks"]
        sections.append(f"### {label}\n\n" + markdown_table(head, rows))
    explained = (
        "As a share of TVM patched's whole session, unless the column says otherwise; ∞: never. Curves are "
        "scaled to end at the neutral time of the tuner's final kernel, except under *own clocks*. "
        "*Its own moment*: against the moment when TVM patched itself found that kernel. *Median latency*: "
        "until the median over seeds of TVM patched's final latencies."
    )
    return "\n\n".join(["## Until TVM patched's final latency is reached", explained, *sections])


def _split_section(groups: Sequence[Group]) -> str:
    rows = []
    for group in groups:
        for tuner, label in LABELS.items():
            units = list(group.units.get(tuner, {}).values())
            if not units:
                continue
            shares = [
                statistics.median(unit.tuned.split[name] / unit.tuned.wall_secs for unit in units)
                for name in _ACTIVITIES
            ]
            outside = spread(unit.overhead_ratio for unit in units)
            cells = [f"{share:.0%}" for share in shares]
            search = _of(group.per_seed(tuner, _search_ms_per_trial), "{:.0f}")
            rows.append([group.task, label, *cells, shown_spread(outside, "{:.0%}"), search])
    head = ["task", "tuner", *_ACTIVITIES, "outside build and run", "search per trial (ms)"]
    return "## Where the wall time goes (medians)\n\n" + markdown_table(head, rows)


def _failures_section(groups: Sequence[Group]) -> str:
    rows = []
    for tuner, label in LABELS.items():
        units = [unit for group in groups for unit in group.units.get(tuner, {}).values()]
        failures = (trial.failure for unit in units for trial in unit.tuned.trials)
        counts = Counter(kind for kind in failures if kind not in NOT_FAILED)
        total = sum(len(unit.tuned.trials) for unit in units)
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common()) or "none"
        short = sum(len(unit.tuned.trials) < unit.num_trials_asked for unit in units)
        imports = spread(unit.import_secs for unit in units)
        rows.append([label, str(len(units)), str(total), kinds, str(short), shown_spread(imports, "{:.1f}")])
    head = ["tuner", "runs", "trials", "failed", "runs that ended early", "imports before the clock (s)"]
    wrong = [f"- {group.task}: {problem}" for group in groups for problem in group.wrong]
    tail = "\n".join(["Final kernels with wrong results:", *wrong]) if wrong else "No final kernel is wrong."
    return "## Failures\n\n" + markdown_table(head, rows) + "\n\n" + tail


def _scaled_runs(group: Group) -> dict[str, list[tuple[UnitResult, float]]]:
    """By label: the runs with their factors to the neutral clock; runs that were not timed are left out."""
    runs: dict[str, list[tuple[UnitResult, float]]] = {}
    for tuner, label in LABELS.items():
        for seed, unit in group.units.get(tuner, {}).items():
            if (scale := group.scale(tuner, seed)) is not None:
                runs.setdefault(label, []).append((unit, scale))
    return runs


def _trials_per_sec(unit: UnitResult) -> float:
    return len(unit.tuned.trials) / unit.tuned.wall_secs


def _search_ms_per_trial(unit: UnitResult) -> float:
    return 1e3 * unit.tuned.split["search"] / len(unit.tuned.trials)


def _all_there_are(group: Group) -> str:
    """Where our runs have ended early, as there was nothing left to measure: after how many trials."""
    counts = {len(unit.tuned.trials) for unit in group.units.get(OURS, {}).values() if unit.has_run_out}
    return f" (ours: all {'–'.join(map(str, sorted(counts)))} there are)" if counts else ""


def _of(values: Mapping[int, float], form: str) -> str:
    return shown_spread(spread(values.values()), form)


def _cell(columns: Mapping[str, Mapping[str, Spread]], name: str, task: str) -> str:
    return shown_spread(columns.get(name, {}).get(task), "{:.3f}")
