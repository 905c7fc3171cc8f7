"""What is closed when a `with` block ends."""

from types import TracebackType
from typing import Self


class Closeable:
    """`with` closes it, whatever has happened inside."""

    def close(self) -> None:
        """Give back what it holds; closing twice is fine."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
