"""The preloaded library of `disk_faults.c`, driven from the process that it is loaded into."""

import ctypes


class Disk:
    """Which write of this process fails; the library counts those below DISK_FAULTS_FOLDER."""

    def __init__(self, library: str) -> None:
        self._library = ctypes.CDLL(library)
        self._library.disk_faults_num_calls.restype = ctypes.c_long
        self._library.disk_faults_failed_call.restype = ctypes.c_char_p

    def arm(self, fault: int, error: int, *, is_lasting: bool = False) -> None:
        """Count from 1 again; the `fault`-th write, or all from there on, fail with an `errno`, 0: kill."""
        self._library.disk_faults_arm(ctypes.c_long(fault), error, int(is_lasting))

    def lift(self) -> None:
        self._library.disk_faults_lift()

    @property
    def num_calls(self) -> int:
        return int(self._library.disk_faults_num_calls())

    @property
    def failed_call(self) -> str:
        """The first that failed, "" where none has."""
        return bytes(self._library.disk_faults_failed_call()).decode()
