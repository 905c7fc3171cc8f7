"""What every measurer promises, whatever it measures with. Subclasses give the fixture `measurer`."""

from typing import Any

from tests.workers.workloads import default_trace_json, matmul_task, measure_input
from tunewright.core.types import FailureKind, MeasureFailure, MeasureSuccess


class MeasurerContract:
    """Of real and simulated measurers."""

    def test_good_candidates_are_timed_and_verified(self, measurer: Any) -> None:
        task = matmul_task()
        good = default_trace_json(task)
        results = measurer.measure([measure_input(task, good)] * 2)
        assert len(results) == 2
        verified = [result for result in results if isinstance(result, MeasureSuccess) and result.is_verified]
        assert len(verified) == 1  # the other is its duplicate

    def test_equal_machine_code_is_run_once(self, measurer: Any) -> None:
        task = matmul_task(40)
        good = measure_input(task, default_trace_json(task))
        # Which of the two is built first is not promised.
        first, second = sorted(measurer.measure([good, good]), key=lambda result: result.is_duplicate)
        (third,) = measurer.measure([good])
        assert isinstance(first, MeasureSuccess) and first.object_key and not first.is_duplicate
        for copy in (second, third):
            assert isinstance(copy, MeasureSuccess) and copy.is_duplicate
            assert copy.run_secs == first.run_secs and first.is_verified and not copy.is_verified
            assert copy.object_key == first.object_key
            assert copy.wall_secs == copy.build_secs > 0

    def test_race_takes_a_sample_per_round_and_verifies_who_may_have_won(self, measurer: Any) -> None:
        task = matmul_task()
        good = measure_input(task, default_trace_json(task), incumbent_secs=1e-9)
        results = measurer.race([good, good], rounds=5)
        best_secs = min(result.median_secs for result in results)
        for result in results:
            assert isinstance(result, MeasureSuccess)
            assert 3 <= len(result.run_secs) <= 5
            assert result.is_verified or result.median_secs > 1.05 * best_secs
            assert result.object_key and not result.is_duplicate
        assert any(result.is_verified and len(result.run_secs) == 5 for result in results)

    def test_empty_batches_are_fine(self, measurer: Any) -> None:
        assert measurer.measure([]) == []
        assert measurer.race([], rounds=3) == []

    def test_counts_what_it_measures_and_knows_its_machine(self, measurer: Any) -> None:
        task = matmul_task(48)
        before = measurer.stats
        measurer.measure([measure_input(task, default_trace_json(task))])
        after = measurer.stats
        assert after.num_measured == before.num_measured + 1
        assert after.build_wall_secs > before.build_wall_secs
        assert after.run_wall_secs > before.run_wall_secs
        assert len(measurer.machine.fingerprint) == 16


class RealMeasurerContract(MeasurerContract):
    """Of those that run children; their zygotes know the faults of `fault_jobs`."""

    def test_one_result_per_input_in_order(self, measurer: Any) -> None:
        task = matmul_task()
        good = default_trace_json(task)
        traces = [good, "run:exit", good, "[[],{]", good]
        results = measurer.measure([measure_input(task, trace) for trace in traces])
        assert all(isinstance(result, MeasureSuccess) for result in results[::2])
        kinds = [result.kind for result in results[1::2]]
        assert kinds == [FailureKind.RUN, FailureKind.REPLAY]

    def test_a_crash_does_not_stop_a_race(self, measurer: Any) -> None:
        task = matmul_task()
        good = measure_input(task, default_trace_json(task))
        first, failure, second = measurer.race([good, measure_input(task, "run:abort"), good], rounds=2)
        assert isinstance(first, MeasureSuccess) and isinstance(second, MeasureSuccess)
        assert isinstance(failure, MeasureFailure) and failure.kind is FailureKind.RUN
