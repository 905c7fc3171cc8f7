import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cost_model.trials import failure, features, success, trial
from tunewright.core.types import FailureKind, MeasureResult, RecordedTrial
from tunewright.cost_model import make_training_set, usable_trials

SECS = st.floats(1e-7, 10.0)
RESULTS = st.one_of(
    SECS.map(success),
    SECS.map(lambda secs: failure(FailureKind.PRUNED, secs)),
    st.sampled_from(
        [kind for kind in FailureKind if kind not in (FailureKind.PRUNED, FailureKind.WORKER_LOST)]
    ).map(failure),
)


@st.composite
def trial_lists(draw: st.DrawFn) -> list[RecordedTrial]:
    outcomes = draw(
        st.lists(st.tuples(RESULTS, st.sampled_from("ab"), st.sampled_from("xy")), min_size=1, max_size=30)
    )
    return [
        trial(result, task=task, machine=machine, seed=index)
        for index, (result, task, machine) in enumerate(outcomes)
    ]


@settings(deadline=None)
@given(trial_lists())
def test_labels_are_shares_of_the_groups_best(trials: list[RecordedTrial]) -> None:
    data = make_training_set(trials)
    assert len(data) == len(trials)
    assert data.label.min() >= 0.0 and data.label.max() <= 1.0
    names = [(t.record.task_key, t.record.machine.fingerprint) for t in trials]
    assert data.n_groups == len(set(names)) == data.group.max() + 1
    for name in set(names):
        members = [index for index, other in enumerate(names) if other == name]
        assert len(set(data.group[members])) == 1
        assert data.group_tasks[data.group[members[0]]] == name[0]
        has_time = [trials[index].record.result.run_secs != () for index in members]
        np.testing.assert_array_equal(data.label[members] > 0, has_time)
        if any(has_time):
            assert data.label[members].max() == 1.0


@pytest.mark.parametrize(
    ("result", "label"),
    [
        (success(4.0), 0.25),
        (failure(FailureKind.PRUNED, 5.0), 0.2),
        (failure(FailureKind.PRUNED), 0.0),
        (failure(FailureKind.WRONG_RESULT, 0.5), 0.0),
        (failure(FailureKind.BUILD_TIMEOUT), 0.0),
    ],
)
def test_the_label_of_each_outcome(result: MeasureResult, label: float) -> None:
    data = make_training_set([trial(success(1.0)), trial(result, seed=1)])
    np.testing.assert_allclose(data.label, [1.0, label], rtol=1e-6)


def test_times_of_two_machines_are_not_compared() -> None:
    data = make_training_set(
        [trial(success(1.0), machine="fast"), trial(success(9.0), machine="slow", seed=1)]
    )
    assert data.label.tolist() == [1.0, 1.0]
    assert data.group.tolist() == [0, 1]


def test_what_teaches_nothing_is_skipped() -> None:
    kept = trial(success(1.0), seed=7)
    nan = features(3)
    nan[0, 0] = np.nan
    trials = [
        trial(failure(FailureKind.WORKER_LOST)),
        RecordedTrial(1, kept.record, features=None),
        trial(success(0.5), rows=np.zeros((2, 172), dtype=np.float32)),  # of another feature version
        trial(success(0.5), rows=np.zeros((0, 164), dtype=np.float32)),
        trial(success(0.5), rows=nan),
        kept,
    ]
    assert usable_trials(trials) == [kept]
    data = make_training_set(trials)
    assert data.label.tolist() == [1.0]
    np.testing.assert_array_equal(data.features.rows, features(7))


def test_a_log_without_features_gives_an_empty_set() -> None:
    assert len(make_training_set([])) == 0
