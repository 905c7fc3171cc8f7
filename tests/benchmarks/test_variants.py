import pytest
from side_by_side.variants import LOG_TECHNIQUES, TECHNIQUES, Setup, change_of, full_setup, variant_names

from tunewright.core.types import TargetSpec


@pytest.fixture
def full() -> Setup:
    return full_setup(TargetSpec(mcpu="skylake", num_threads=1), num_trials=64, seed=3)


def test_full_changes_nothing(full: Setup) -> None:
    assert change_of("full")(full) == full


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_every_technique_can_be_taken_out_and_be_alone(technique: str, full: Setup) -> None:
    without, alone = change_of(f"without-{technique}")(full), change_of(f"only-{technique}")(full)
    none = change_of("none")(full)
    assert without != full
    assert alone != none
    assert TECHNIQUES[technique](alone) == none


@pytest.mark.parametrize("technique", LOG_TECHNIQUES)
def test_what_needs_a_log_is_taken_out_with_one(technique: str, full: Setup) -> None:
    assert change_of("full+log")(full) == full
    assert change_of(f"without-{technique}+log")(full) != full


def test_every_name_is_understood_and_no_other() -> None:
    for name in variant_names():
        change_of(name)
    with pytest.raises(ValueError, match="unknown"):
        change_of("without-luck")
