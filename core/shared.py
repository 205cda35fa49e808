"""Memory that several processes see alike, and a lock for it that no kill leaves taken."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from typing import IO, Any

from agentctl.core.errors import NotReadyError

try:
    import fcntl
except ImportError:  # Windows has no lock that a kill gives back
    fcntl = None  # type: ignore[assignment]


class Shared:
    """``nbytes``, zero at first, and a lock. Hand it to a spawned process as an argument, and both hold the same.

    It is a file without a name, mapped to memory: the kernel removes it with the last process that holds it, whatever
    ends them. ``multiprocessing.shared_memory`` has names, which a kill may leave behind. The lock is a record lock on
    that file: when its holder is killed, the kernel takes it back. ``multiprocessing.Lock`` is a semaphore, which would
    then stay taken for ever. It keeps processes apart, not the threads of one.
    """

    def __init__(self, nbytes: int) -> None:
        if fcntl is None:
            raise NotReadyError("worker processes need Linux or macOS: Windows has no lock that a kill gives back")
        file = _nameless_file()
        os.ftruncate(file.fileno(), nbytes)
        self._map(file, nbytes)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among the processes that hold it."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.reduction import DupFd  # slow to import

        return _joined, (DupFd(self._file.fileno()), self.nbytes)

    def _map(self, file: IO[bytes], nbytes: int) -> None:
        self._file, self.nbytes = file, nbytes
        self.buffer = memoryview(mmap.mmap(file.fileno(), nbytes))


def _nameless_file() -> IO[bytes]:
    if sys.platform == "linux":
        return FileIO(os.memfd_create("agentctl"), "r+")  # in memory, and never on a disk
    import tempfile

    return tempfile.TemporaryFile(buffering=0)


def _joined(handle: Any, nbytes: int) -> Shared:
    """What another process shares with this one."""
    shared = Shared.__new__(Shared)
    shared._map(FileIO(handle.detach(), "r+"), nbytes)
    return shared
