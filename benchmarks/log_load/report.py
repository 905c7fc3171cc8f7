"""The results as a page of Markdown."""

import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from log_load.results import Ingest, Lookups, Opening, Producers, Results


def markdown(results: Results) -> str:
    """One table for each question; every figure is computed from the raw values."""
    machine = results.machine
    lines = [
        "# The tuning log under load",
        "",
        f"- {results.database}; machine {machine['fingerprint']}: {machine['cpu_model']}, "
        f"{machine['num_cpus']} CPUs, of which the benchmark had {len(results.cpus)}; "
        f"load before {results.load_before[0]:.1f}.",
        f"- Trials made from {results.source}, {results.num_tasks} tasks, seed {results.seed}; "
        f"{results.feature_share:.0%} of them with features, as their models.",
        f"- Begun {results.started_at}.",
        "",
        *_ingest_table(results.ingests),
        "",
        *_filling_table(results),
        "",
        *(line for producers in results.producers for line in _producer_lines(producers)),
        "",
        *_lookup_table(results.lookups),
        "",
        *_size_lines(results),
        *(line for opening in results.openings for line in _opening_lines(opening)),
    ]
    return "\n".join(lines) + "\n"


def growth(lookups: Sequence[Lookups]) -> Iterator[tuple[str, float, float]]:
    """What is looked up, and its p50 and p99 in the largest log relative to those in the smallest."""
    first, last = lookups[0], lookups[-1]
    for what, before, after in (
        ("one task", first.one_secs, last.one_secs),
        (f"a model of {last.tasks_per_model} tasks", first.model_secs, last.model_secs),
    ):
        yield (
            what,
            _percentile(after, 50) / _percentile(before, 50),
            _percentile(after, 99) / _percentile(before, 99),
        )


def _ingest_table(ingests: Sequence[Ingest]) -> list[str]:
    rows = []
    for ingest in ingests:
        rates = [ingest.batch_size / secs for secs in ingest.append_secs]
        rows.append(
            f"| {ingest.num_stored:,} | {'yes' if ingest.with_features else 'no'} | {ingest.batch_size:,} "
            f"| {statistics.median(rates):,.0f} | {min(rates):,.0f} – {max(rates):,.0f} | {len(rates)} "
            f"| {1e3 * statistics.median(ingest.append_secs):.1f} |"
        )
    return [
        "One writer; each batch is one `append`, with the traces.",
        "",
        "| trials in the log | features | batch | trials/s, median | range | batches | ms per batch |",
        "|---:|---|---:|---:|---:|---:|---:|",
        *rows,
    ]


def _filling_table(results: Results) -> list[str]:
    return [
        "Batches of 1,024 on the way; seconds in `append` alone.",
        "",
        "| from | to | trials/s |",
        "|---:|---:|---:|",
        *(
            f"| {filling.num_stored:,} | {filling.num_stored + filling.num_trials:,} "
            f"| {filling.num_trials / filling.append_secs:,.0f} |"
            for filling in results.fillings
            if filling.num_trials
        ),
    ]


def _producer_lines(producers: Producers) -> list[str]:
    num_rows = producers.num_processes * producers.num_rows
    return [
        f"{producers.num_processes} processes × {producers.num_rows:,} trials in batches of "
        f"{producers.batch_size} into a log of {producers.num_stored:,}: {producers.secs:.1f} s, "
        f"{num_rows / producers.secs:,.0f} trials/s; of {num_rows:,} trials {producers.num_missing} missing, "
        f"{producers.num_doubled} doubled; a batch took {_spread(producers.append_secs)}.",
        f"Errors seen: {'; '.join(producers.errors) or 'none'}.",
    ]


def _lookup_table(lookups: Sequence[Lookups]) -> list[str]:
    rows = []
    for lookup in lookups:
        for what, secs in (
            ("one task", lookup.one_secs),
            (f"{lookup.tasks_per_model} tasks", lookup.model_secs),
        ):
            rows.append(
                f"| {lookup.num_stored:,} | {what} | {1e3 * _percentile(secs, 50):.2f} "
                f"| {1e3 * _percentile(secs, 99):.2f} | {len(secs):,} | {lookup.num_wrong} |"
            )
    return [
        "The best trial: `best` of one task, `best_many` of a model, drawn at random, in a fresh process.",
        "",
        "| trials in the log | of | p50, ms | p99, ms | lookups | wrong answers |",
        "|---:|---|---:|---:|---:|---:|",
        *rows,
        "",
        *(
            f"From {lookups[0].num_stored:,} to {lookups[-1].num_stored:,} trials, {what}: "
            f"p50 × {median:.2f}, p99 × {tail:.2f}.  "
            for what, median, tail in growth(lookups)
        ),
    ]


def _size_lines(results: Results) -> list[str]:
    empty, full = results.sizes[0], results.sizes[-1]
    per_trial = (full.num_bytes - empty.num_bytes) / full.num_stored
    return [
        f"On disk: {full.num_bytes / 1e6:,.1f} MB with {full.num_stored:,} trials and their features, of "
        f"which {empty.num_bytes / 1e6:,.1f} MB are tasks and sessions: {per_trial:,.0f} bytes per trial.",
        "",
    ]


def _opening_lines(opening: Opening) -> list[str]:
    return [
        f"Opening it: {1e3 * opening.first_secs:.1f} ms the first time in a process, "
        f"{_spread(opening.again_secs)} again, {_spread(opening.read_only_secs)} read-only."
    ]


def _spread(secs: Sequence[float]) -> str:
    if not secs:
        return "no time"
    return f"{1e3 * statistics.median(secs):.1f} [{1e3 * min(secs):.1f} – {1e3 * max(secs):.1f}] ms"


def _percentile(secs: Sequence[float], percent: int) -> float:
    return float(np.percentile(secs, percent))
