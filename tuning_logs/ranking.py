"""The best-schedule lookup: the first few usable trials of each task, from the front of an index.

Its statements are built once: building one takes longer than the database needs to answer.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, exists, select, true
from sqlalchemy.orm import Session, aliased

from tunewright.core.types import TaskKey
from tunewright.tuning_logs import queries
from tunewright.tuning_logs.matching import Match, Tier, tiers
from tunewright.tuning_logs.shared_rows import SharedRows
from tunewright.tuning_logs.summaries import RankedTrial
from tunewright.tuning_logs.tables import RaceRow, SessionRow, TargetRow, TaskRow, TrialRow

Ranked = defaultdict[TaskKey, list[RankedTrial]]


def best(
    session: Session,
    shared: SharedRows,
    *,
    k: int,
    task_keys: Sequence[TaskKey] | None = None,
    mcpu: str | None = None,
    match: Match | None = None,
    fingerprint: str | None = None,
) -> Ranked:
    """The `k` best usable trials of each of the tasks, those of a better tier first.

    Args:
        task_keys: the tasks; None: all whose target has that `mcpu`.
        fingerprint: only trials that were timed on such a machine.
    """
    if match is None and fingerprint is None:
        return _best_of_tier(session, shared, Tier(None, None), k, task_keys, mcpu)
    machines = queries.all_machines(session, shared)
    found: Ranked = defaultdict(list)
    for tier in tiers(match, machines):
        if fingerprint is not None:
            timed_on = frozenset(i for i, m in machines.items() if m.fingerprint == fingerprint)
            tier = replace(tier, timed_on=timed_on)
        for task_key, ranked in _best_of_tier(session, shared, tier, k, task_keys, mcpu).items():
            known = {trial.trial.record_id for trial in found[task_key]}
            new = [trial for trial in ranked if trial.trial.record_id not in known]
            found[task_key] += new[: k - len(known)]
    return found


def _best_of_tier(
    session: Session,
    shared: SharedRows,
    tier: Tier,
    k: int,
    task_keys: Sequence[TaskKey] | None,
    mcpu: str | None,
) -> Ranked:
    statement = _statement(
        is_postgresql=session.get_bind().dialect.name == "postgresql",
        is_by_key=task_keys is not None,
        is_by_machine=tier.timed_on is not None,
        is_by_software=tier.verified_on is not None,
    )
    values: dict[str, Any] = {"k": k}
    values |= {"mcpu": mcpu} if task_keys is None else {"task_keys": list(task_keys)}
    if tier.timed_on is not None:
        values["timed_on"] = list(tier.timed_on)
    if tier.verified_on is not None:
        values["verified_on"] = list(tier.verified_on)
    # Past the object-relational mapper, which would take half of the time.
    rows = session.connection().execute(statement, values).all()
    ranked: Ranked = defaultdict(list)
    for row, trial in zip(rows, queries.trials_from_rows(session, shared, rows), strict=True):
        ranked[trial.record.task_key].append(RankedTrial(trial, row.ranked_secs, row[-1]))
    return ranked


@cache
def _statement(
    *, is_postgresql: bool, is_by_key: bool, is_by_machine: bool, is_by_software: bool
) -> Select[Any]:
    candidate = aliased(TrialRow)
    top = select(candidate.id).where(candidate.task_id == TaskRow.id, queries.is_usable(candidate))
    if is_by_machine:
        top = top.where(candidate.machine_id.in_(bindparam("timed_on", expanding=True)))
    if is_by_software:
        top = top.where(candidate.verified_machine_id.in_(bindparam("verified_on", expanding=True)))
    top = top.order_by(candidate.ranked_secs, candidate.id).limit(bindparam("k")).correlate(TaskRow)
    is_raced = exists().where(RaceRow.trial_id == TrialRow.id)
    query = select(*queries.trial_columns(with_features=False), is_raced).select_from(TaskRow)
    # Each engine has a form for which it does not read whole tasks.
    if is_postgresql:
        lateral = top.lateral()
        query = query.join(lateral, true()).join(TrialRow, TrialRow.id == lateral.c.id)
    else:
        query = query.join(TrialRow, TrialRow.id.in_(top))
    query = query.join(SessionRow, SessionRow.id == TrialRow.session_id)
    if is_by_key:
        query = query.where(TaskRow.task_key.in_(bindparam("task_keys", expanding=True)))
    else:
        targets = select(TargetRow.id).where(TargetRow.mcpu == bindparam("mcpu"))
        query = query.where(TaskRow.target_id.in_(targets))
    return query.order_by(TaskRow.id, TrialRow.ranked_secs, TrialRow.id)
