"""What the log has for a model: of a compiled one without TVM, of an ONNX file as `db explain` says."""

from pathlib import Path

import pytest

from tests.explore.html_page import EVIL, assert_harmless
from tests.explore.test_comparison import entry, manifest
from tests.gate.fakes import HERE
from tests.models import dense_net
from tests.plots.tuned_log import CONV, MATMUL, add_session, failure, make_task, success
from tunewright.core.errors import ConfigError
from tunewright.explore import OpenLog
from tunewright.tuning_logs import TuningLog


@pytest.fixture
def log() -> OpenLog:
    """The conv has a record that any machine with this TVM may use, the product has failed."""
    opened = TuningLog.open("sqlite://")
    add_session(opened, "s", [(CONV, success(0.5)), (CONV, success(0.25)), (MATMUL, failure())], machine=HERE)
    return OpenLog(opened, place="in memory")


def test_of_a_compiled_model(log: OpenLog, tmp_path: Path) -> None:
    best = log.best().iloc[0]
    candidate = log.trials().set_index("record_id")["candidate_key"][best["record_id"]]
    stranger = make_task("pool 8x8 -> 8x8")
    folder = manifest(
        tmp_path / "net",
        entry("matmul", MATMUL.key, None, 1),
        entry("conv", CONV.key, int(best["record_id"]), 4, candidate),
        entry("pool", stranger.key, 4, 2, "k"),
        entry("reshape", None, None, 1),
    )
    found = log.coverage(folder)
    # All calls were predicted to take as long.
    assert [(kernel.name, kernel.share) for kernel in found.kernels] == [
        ("conv", 0.5),
        ("pool", 0.25),
        ("matmul", 0.125),
        ("reshape", 0.125),
    ]
    assert found.ratio == 0.5
    assert [kernel.why for kernel in found.kernels] == [
        "compiled from it",
        "no record for this workload",
        "its only trial is no verified success (1 failed: 1 build)",
        "cannot be tuned",
    ]
    assert repr(found) == "<Coverage of net: 1 of 4 kernels, 50.0 % of the predicted time, have a record>"
    frame = found.to_frame()
    assert frame["record_id"].tolist()[0] == best["record_id"] and frame["record_id"].isna().sum() == 3
    assert frame["best_secs"][0] == 0.25
    assert frame["compiled_from"].tolist() == [
        f"record {best['record_id']}",
        "record 4",
        "default",
        "default",
    ]
    page = assert_harmless(found._repr_html_())
    assert [row[4] for row in page.rows[1:]] == ["hit", "miss", "miss", "miss"]
    assert log.coverage(folder / "manifest.json").kernels == found.kernels


def test_a_better_record_since_it_was_compiled(log: OpenLog, tmp_path: Path) -> None:
    folder = manifest(tmp_path / "net", entry("conv", CONV.key, 1, 1, "an older schedule"))
    [kernel] = log.coverage(folder).kernels
    assert kernel.is_hit and kernel.why == "compiled from another schedule"


def test_hostile_names_and_other_policies(log: OpenLog, tmp_path: Path) -> None:
    folder = manifest(tmp_path / "net", entry(EVIL, CONV.key, 1), name=f"\x1b{EVIL}")
    for match in ("exact", "compatible", "any"):
        found = log.coverage(folder, match=match)
        page = assert_harmless(found._repr_html_())
        assert page.text.count(EVIL) == 2 and "\x1b" not in page.text + repr(found)
    with pytest.raises(ConfigError, match="match is 'all': choose one of exact, compatible, any"):
        log.coverage(folder, match="all")
    with pytest.raises(ConfigError, match="is no compiled model"):
        log.coverage(tmp_path)


@pytest.mark.tvm
@pytest.mark.slow
def test_of_an_onnx_file(log: OpenLog, tmp_path: Path) -> None:
    found = log.coverage(dense_net(tmp_path / "dense.onnx"), num_threads=2)
    assert found.model == "dense.onnx" and found.target.endswith("2 threads")
    assert found.ratio == 0 and sum(kernel.share for kernel in found.kernels) == pytest.approx(1)
    assert {kernel.why for kernel in found.kernels} == {"no record for this workload"}
