"""Ctrl-C that cannot get lost."""

import signal
from types import FrameType
from typing import Self

from tunewright.core.closeable import Closeable


class InterruptWatch(Closeable):
    """Remembers an interrupt, for Python drops the exception where it strikes in a destructor or a callback.

    For the main thread. `check` again and again what may have been dropped.
    """

    def __init__(self) -> None:
        self._is_interrupted = False

    def check(self) -> None:
        """Raises: KeyboardInterrupt if there has been an interrupt."""
        if self._is_interrupted:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Interrupts are treated as before."""
        signal.signal(signal.SIGINT, self._before)

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._is_interrupted = True
        raise KeyboardInterrupt
