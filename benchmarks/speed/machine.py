"""The machine: what it is, and whether it had anything else to do.

Linux counts the time that all cores were busy (``/proc/stat``) and that each process ran
(``/proc/PID/stat``), in ticks of 1/100 s.  What is busy and not ours is somebody else's.
"""

import os
import platform
import subprocess
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

QUIET = 0.1
"""Cores that others may use, on average, before the machine counts as busy."""
PACKAGES = ("bayesvae", "torch", "pyro-ppl", "numpy", "jax", "jaxlib", "numpyro", "pythae")


class Reading(NamedTuple):
    """Ticks since the machine was started, and when that was read.

    Attributes:
        busy: of all cores together, also when another virtual machine had them.
        own: of the processes asked for.
        seconds: on the wall.
    """

    busy: float
    own: float
    seconds: float


def busy_ticks(stat: str) -> int:
    r"""Ticks of any core at work, from the text of ``/proc/stat``.

    Example:
        >>> busy_ticks("cpu  10 2 3 500 7 1 1 4 0 0\ncpu0 10 2 3 500 7 1 1 4 0 0")
        21
    """
    user, nice, system, _idle, _iowait, irq, softirq, *rest = map(int, stat.split()[1:9])
    return user + nice + system + irq + softirq + sum(rest[:1])


def process_ticks(stat: str) -> int:
    """Ticks of a process and the children it has waited for, from ``/proc/PID/stat``.

    Example:
        >>> process_ticks("7 (a (b) c) S 1 7 7 0 -1 4 9 9 9 9 100 20 3 4 20 0 1")
        127
    """
    after_name = stat.rpartition(")")[2].split()
    return sum(map(int, after_name[11:15]))


def read(processes: Iterable[int], root: Path = Path("/proc")) -> Reading:
    """A reading now.

    Args:
        processes: our own.
        root: where the kernel shows its counts.
    """
    own = 0
    for process in processes:
        path = root / str(process) / "stat"
        own += process_ticks(path.read_text()) if path.exists() else 0
    return Reading(busy_ticks((root / "stat").read_text()), own, time.monotonic())


def others(before: Reading, after: Reading) -> float:
    """Cores that other processes kept busy between two readings, on average.

    Example:
        >>> others(Reading(1000, 300, 10.0), Reading(1500, 700, 15.0))
        0.2
    """
    ticks = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, ticks / os.sysconf("SC_CLK_TCK") / (after.seconds - before.seconds))


def others_now(seconds: float = 2.0) -> float:
    """Cores that other processes are using, over so many seconds of waiting."""
    before = read([os.getpid()])
    time.sleep(seconds)
    return others(before, read([os.getpid()]))


def cores(threads: int) -> list[int]:
    """The last cores that this process may use; the first ones serve interrupts.

    Raises:
        ValueError: if there are not as many.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(allowed):
        raise ValueError(f"--threads must lie between 1 and {len(allowed)}; got {threads}.")
    return allowed[-threads:]


def facts() -> dict[str, Any]:
    """What a reader needs to know about the machine and the software."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "vectors": _vectors(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "compiler": _output("g++", "-dumpfullversion"),
        "commit": _output(
            "git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"
        ),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _field(path: str, name: str) -> str:
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith(name)]
    return found[0] if found else ""


def _vectors() -> list[str]:
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    flags = _field("/proc/cpuinfo", "flags").split()
    return [name for name in wanted if name in flags]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
