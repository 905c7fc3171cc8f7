"""Search for numbers such as a model's hyper-parameters, in a file that another process can go on with.

Not for schedules: those are searched by strategies, whose memory is the tuning log. Optuna's tables and ours
never share a database, as both would claim the same name for their version.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import Trial, TrialState

from tunewright.core.errors import ConfigError
from tunewright.core.keys import digest
from tunewright.core.log_url import file_url
from tunewright.search.optuna_search import quiet

Number = int | float

_SQLITE = b"SQLite format 3\0"
_DATA = "tunewright:data"
_NUM_RANDOM = 10


@dataclass(frozen=True, slots=True)
class NumberRange:
    """`low` to `high`, both included; whole numbers where both are. `is_log`: equal ratios, equal steps."""

    low: Number
    high: Number
    is_log: bool = False


@dataclass(frozen=True, slots=True)
class Best:
    """The best trial so far; `number` counts from 0."""

    number: int
    values: Mapping[str, Number]
    score: float


class HyperStudy:
    """One study by TPE; a higher score is better.

    Trials whose first parts are worse than the median of the others' may be given up.
    """

    def __init__(self, study: optuna.Study, ranges: Mapping[str, NumberRange]) -> None:
        self._study = study
        self._box = {name: _distribution(one) for name, one in ranges.items()}
        self._asked: Trial | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        name: str,
        ranges: Mapping[str, NumberRange],
        *,
        start: Mapping[str, Number],
        data: str,
    ) -> Self:
        """Make the study, or go on with it.

        Args:
            path: of an SQLite file, made where it is missing.
            start: what is tried first.
            data: a digest of all that scores depend on: those of other data cannot be compared.

        Raises:
            ConfigError: the file cannot be used, or the study was made with other data.
        """
        _check_file(path)
        with quiet():
            study = optuna.create_study(
                storage=file_url(path), study_name=name, direction="maximize", load_if_exists=True
            )
        known = study.user_attrs.get(_DATA)
        if known is None:
            study.set_user_attr(_DATA, data)
        elif known != data:
            raise ConfigError(
                f"study '{name}' in {path} was made with other trials or another metric, and scores of both "
                "cannot be compared: choose another --study"
            )
        study.sampler = _make_sampler(name, len(study.get_trials(deepcopy=False)))
        study.pruner = MedianPruner(n_startup_trials=_NUM_RANDOM, n_warmup_steps=1)
        with quiet():
            study.enqueue_trial(dict(start), skip_if_exists=True)
        return cls(study, ranges)

    @property
    def num_done(self) -> int:
        """Trials that have a score, or were given up."""
        return len(self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))

    @property
    def best(self) -> Best | None:
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not done:
            return None
        first = max(done, key=lambda trial: (trial.values[0], -trial.number))
        return Best(first.number, first.params, first.values[0])

    def ask(self) -> dict[str, Number]:
        """What to try next."""
        self._asked = self._study.ask(self._box)
        return dict(self._asked.params)

    def goes_on(self, part: int, score_so_far: float) -> bool:
        """Whether what was asked is worth its other parts; it is given up where not."""
        trial = self._trial()
        trial.report(score_so_far, part)
        if not trial.should_prune():
            return True
        self._study.tell(trial, state=TrialState.PRUNED)
        self._asked = None
        return False

    def tell(self, score: float) -> None:
        """The score of what was asked."""
        self._study.tell(self._trial(), score)
        self._asked = None

    def _trial(self) -> Trial:
        if self._asked is None:
            raise ValueError("nothing was asked that has no score yet")
        return self._asked


def _distribution(one: NumberRange) -> BaseDistribution:
    if isinstance(one.low, int) and isinstance(one.high, int):
        return IntDistribution(one.low, one.high, log=one.is_log)
    return FloatDistribution(one.low, one.high, log=one.is_log)


def _make_sampler(name: str, num_trials: int) -> TPESampler:
    """Another process goes on with other random numbers than those that were used."""
    with quiet():
        seed = int(digest(name, str(num_trials))[:8], 16) >> 1
        return TPESampler(n_startup_trials=_NUM_RANDOM, multivariate=True, seed=seed)


def _check_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            start = file.read(len(_SQLITE))
    except OSError as error:
        raise ConfigError(
            f"studies cannot be kept in {path} ({error.strerror}): name another file"
        ) from error
    if start not in (b"", _SQLITE):
        raise ConfigError(f"{path} is no SQLite file, so no studies can be kept in it: name another file")
