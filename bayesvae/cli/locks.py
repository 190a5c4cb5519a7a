"""A lock on a run folder that ends with the process that holds it."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

LONG = 3600.0
"""Seconds that finished work waits for a place to be put in."""


@contextmanager
def locked(run: Path, while_waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the lock of a run folder, which lies beside it.

    The system takes the lock from a process that ends, however it ends.  Where there are no such
    locks, or nothing can be written beside the folder, nothing can replace it either way.

    Args:
        run: the folder; it need not be there.
        while_waiting: called again and again while another process holds it, for an hour at most;
            without, it is not waited for.

    Raises:
        ValueError: if another process holds it, with its number.
    """
    path = run.with_name(f".{run.name}.bayesvae-lock")
    if fcntl is None or not os.access(run.parent, os.W_OK):
        yield
        return
    with _held(path, run, while_waiting) as file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # still ours: others look again after they got it


@contextmanager
def _held(path: Path, run: Path, while_waiting: Callable[[], None] | None) -> Iterator[IO[str]]:
    until = time.monotonic() + (0 if while_waiting is None else LONG)
    while True:
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                if while_waiting is not None and time.monotonic() < until:
                    while_waiting()
                    time.sleep(0.05)
                    continue
                file.seek(0)
                raise ValueError(
                    f"{run} is being written by another `bayesvae` (process "
                    f"{file.read().strip() or 'unknown'}). Wait for it, or choose another folder."
                ) from error
            except OSError:  # a file system without such locks
                yield file
                return
            if _is_at(file, path):
                yield file
                return


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file is still the one at a path, and not removed by who held it before."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
