import signal

import pytest

from tunewright.cli.interrupts import InterruptWatch


class _Dropped:
    """Python ignores what a destructor raises."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_a_destructor_swallowed_is_found() -> None:
    before = signal.getsignal(signal.SIGINT)
    with InterruptWatch() as watch:
        watch.check()
        _Dropped()
        with pytest.raises(KeyboardInterrupt):
            watch.check()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_strikes_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), InterruptWatch():
        signal.raise_signal(signal.SIGINT)
