"""Wire a tuning session: which strategy, which cost model, which spaces, over whose log and workers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from tunewright.core.clock import Clock, SystemClock
from tunewright.core.errors import ConfigError
from tunewright.core.keys import digest
from tunewright.core.types import (
    AppliedCandidate,
    EvaluatorConfig,
    ModelSnapshot,
    Prediction,
    RecordedTrial,
    TargetSpec,
    TuningTask,
)
from tunewright.cost_model import FeatureBatch, make_training_set
from tunewright.cost_model.draft_model import DraftTrees
from tunewright.cost_model.evaluation import online_accuracy
from tunewright.cost_model.hyper_parameters import DEFAULT, HyperParameters
from tunewright.cost_model.xgboost_model import XGBoostCostModel
from tunewright.scheduler.events import SessionEvent, SessionFinished
from tunewright.scheduler.kernel_choice import default_candidate
from tunewright.scheduler.protocols import Measurer, RecordStore
from tunewright.scheduler.session import Budget, SessionConfig, TuningSession
from tunewright.scheduler.task_state import SessionTask
from tunewright.search import (
    CostModel,
    DesignSpace,
    EvolutionarySearch,
    GeneticSearch,
    Hardware,
    RandomSearch,
    SearchStrategy,
)
from tunewright.search.samplers import SAMPLERS, check_sampler

SpaceFactory = Callable[[TuningTask], DesignSpace]


# Of every other task in the log: its first drafts for a new task.
_SEEDS_PER_TASK = 4


@dataclass(frozen=True, slots=True)
class StrategyParts:
    """What the search of one task is made of; `seeds` are the best trials of other tasks."""

    space: DesignSpace
    model: CostModel
    hardware: Hardware
    seeds: Sequence[RecordedTrial]
    seed: int


def _evolutionary(parts: StrategyParts) -> SearchStrategy:
    return EvolutionarySearch(
        parts.space,
        parts.model,
        DraftTrees(seed=parts.seed),
        DraftTrees(seed=parts.seed),
        seed=parts.seed,
        hardware=parts.hardware,
        seeds=parts.seeds,
    )


def _optuna(parts: StrategyParts, sampler: str) -> SearchStrategy:
    from tunewright.search.optuna_search import OptunaSearch  # 0.8 s, which other strategies need not wait

    return OptunaSearch(parts.space, sampler=sampler, seed=parts.seed)


# By the name that records keep.
STRATEGIES: dict[str, Callable[[StrategyParts], SearchStrategy]] = {
    "evolutionary": _evolutionary,
    "genetic": lambda parts: GeneticSearch(parts.space, seed=parts.seed),
    "random": lambda parts: RandomSearch(parts.space, seed=parts.seed),
    **{f"optuna-{sampler}": partial(_optuna, sampler=sampler) for sampler in SAMPLERS},
}
_OPTUNA = "optuna"
# By the name that people choose; the sampler of "optuna" is another choice.
STRATEGY_NAMES = (*(name for name in STRATEGIES if not name.startswith(_OPTUNA)), _OPTUNA)


def strategy_name(strategy: str, sampler: str | None) -> str:
    """The strategy that people mean by a name, and by a sampler if it has several: a key of `STRATEGIES`.

    Raises:
        ConfigError: one of them is unknown, or this strategy has no samplers.
    """
    if strategy == _OPTUNA:
        sampler = sampler or SAMPLERS[0]
        check_sampler(sampler)
        return f"{_OPTUNA}-{sampler}"
    if strategy not in STRATEGIES:
        known = ", ".join(sorted(STRATEGY_NAMES))
        raise ConfigError(f"strategy {strategy!r} is unknown; choose one of: {known}")
    if sampler is not None:
        raise ConfigError(f"strategy {strategy!r} has no samplers: leave out --sampler, or choose optuna")
    return strategy


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What a user chooses of a tuning session; `strategy` is a key of `STRATEGIES`."""

    budget: Budget
    strategy: str = "evolutionary"
    seed: int = 0
    batch_size: int = 16
    evaluator: EvaluatorConfig = field(default_factory=EvaluatorConfig)
    base_model: ModelSnapshot | None = None  # trained elsewhere: what the log knows is learnt on top
    model_params: HyperParameters = DEFAULT

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigError(
                f"strategy {self.strategy!r} is unknown; choose one of: {', '.join(sorted(STRATEGIES))}"
            )
        if self.budget.num_trials is None and self.budget.time_secs is None:
            raise ConfigError("a tuning session needs a budget: give --trials, --time-budget, or both")


class OnlineModel:
    """The cost model of a session: XGBoost, refit on all the trials that the session hands over.

    A base, which comes without its records, predicts at once, and each refit boosts on from it.
    """

    def __init__(
        self, *, seed: int, base: ModelSnapshot | None = None, params: HyperParameters = DEFAULT
    ) -> None:
        """Raises: ModelError: `base` cannot be used; `read_model` would have said so."""
        self._model = (
            XGBoostCostModel.from_snapshot(base, seed=seed, params=params)
            if base
            else XGBoostCostModel(seed=seed, params=params)
        )

    @property
    def is_fitted(self) -> bool:
        return self._model.is_fitted

    def fit_trials(self, trials: Sequence[RecordedTrial]) -> ModelSnapshot:
        return self._model.fit(make_training_set(trials))

    def predict(self, candidates: Sequence[AppliedCandidate]) -> Prediction:
        features = [applied.features for applied in candidates]
        traces = [applied.candidate.trace_json for applied in candidates]
        return self._model.predict(FeatureBatch.of_programs(features, traces))

    def online_accuracy(self, trials: Sequence[RecordedTrial]) -> float | None:
        return online_accuracy(trials)


def tune_tasks(
    tasks: Sequence[TuningTask],
    options: TuneOptions,
    *,
    model_name: str,
    store: RecordStore,
    measurer: Measurer,
    make_space: SpaceFactory,
    on_event: Callable[[SessionEvent], None] = lambda event: None,
    clock: Clock | None = None,
) -> SessionFinished:
    """Tune tasks until the budget is spent.

    Args:
        make_space: a task's design space, usually `workers.ProcessSpace` on the measurer's pool.

    Raises:
        ConfigError: there is nothing to tune.
        WorkerUnavailableError: no measurement worker answers.
        StoreError: the log refuses a record; everything before it is kept.
    """
    if not tasks:
        raise ConfigError(f"{model_name} has no task that can be tuned")
    model = OnlineModel(seed=options.seed, base=options.base_model, params=options.model_params)
    make_strategy = STRATEGIES[options.strategy]
    hardware = hardware_of(tasks[0].target)
    best_of_all = store.best_of_all_tasks(mcpu=tasks[0].target.mcpu, k=_SEEDS_PER_TASK)
    entries = []
    for task in tasks:
        seeds = [one.trial for key, ranked in best_of_all.items() if key != task.key for one in ranked]
        parts = StrategyParts(make_space(task), model, hardware, seeds, _task_seed(options.seed, task))
        entries.append(SessionTask(task, make_strategy(parts), default_candidate(task)))
    config = SessionConfig(
        model_name, options.strategy, options.seed, options.budget, options.evaluator, options.batch_size
    )
    session = TuningSession(
        entries,
        config,
        store=store,
        measurer=measurer,
        model=model,
        clock=clock or SystemClock(),
        on_event=on_event,
    )
    return session.run()


def hardware_of(target: TargetSpec) -> Hardware:
    """What a search may know of a target."""
    from tunewright.core.tvm_adapter.target import num_vector_registers, vector_lanes

    return Hardware(target.num_threads, vector_lanes(target), num_vector_registers(target))


def _task_seed(seed: int, task: TuningTask) -> int:
    return int(digest(str(seed), task.key)[:15], 16)
