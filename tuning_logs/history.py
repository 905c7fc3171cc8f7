"""What a log knows of a trial beside its record: what merging logs carries over."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from tunewright.core.types import FloatArray, RecordedTrial, TuningRecord
from tunewright.tuning_logs import codec, queries, verifications
from tunewright.tuning_logs.shared_rows import SharedRows
from tunewright.tuning_logs.summaries import Race, Verification
from tunewright.tuning_logs.tables import RaceRow, TrialRow


@dataclass(frozen=True, slots=True)
class TrialHistory:
    """A trial with all that happened to it since."""

    record: TuningRecord
    features: FloatArray | None = field(compare=False)
    races: tuple[Race, ...]
    verifications: tuple[Verification, ...]
    unusable_reason: str | None

    @property
    def is_plain(self) -> bool:
        """Nothing happened since."""
        return not (self.races or self.verifications or self.unusable_reason)


def read_histories(
    session: Session, shared: SharedRows, *, session_row_id: int, after_id: int, limit: int
) -> list[tuple[int, TrialHistory]]:
    """The next trials of a session by row id, oldest first: (row id, history) each."""
    trials = queries.trials(
        session,
        shared,
        TrialRow.session_id == session_row_id,
        TrialRow.id > after_id,
        with_features=True,
        oldest_first_limit=limit,
    )
    return list(zip([trial.record_id for trial in trials], histories(session, shared, trials), strict=True))


def histories(session: Session, shared: SharedRows, trials: Sequence[RecordedTrial]) -> list[TrialHistory]:
    """The histories of stored trials, at most some thousands."""
    ids = [trial.record_id for trial in trials]
    races: defaultdict[int, list[Race]] = defaultdict(list)
    for race in session.scalars(select(RaceRow).where(RaceRow.trial_id.in_(ids)).order_by(RaceRow.id)):
        races[race.trial_id].append(Race(codec.samples_from_json(race.run_secs_json), race.raced_at))
    checks = verifications.of_records(session, shared, ids)
    in_quarantine = select(TrialRow.id, TrialRow.unusable_reason).where(
        TrialRow.id.in_(ids), TrialRow.unusable_reason.is_not(None)
    )
    reasons = {row_id: reason for row_id, reason in session.execute(in_quarantine)}
    return [
        TrialHistory(
            trial.record,
            trial.features,
            tuple(races[trial.record_id]),
            tuple(checks[trial.record_id]),
            reasons.get(trial.record_id),
        )
        for trial in trials
    ]
