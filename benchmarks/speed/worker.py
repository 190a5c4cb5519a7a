"""The process of one contestant: set up once, then a slice of steps or an epoch at each request.

Requests and answers are lines of JSON.  Cores are taken before any numerical library is imported,
so that each sizes its pool of threads by them.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.cases import Arrays, Case

WARM = 10
"""Steps before the first that is timed; bayesvae compiles within the first few."""


class Channel:
    """Requests in, answers out; whatever else is printed goes to the log."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(json.loads, sys.stdin)

    def say(self, **answer: Any) -> None:
        """Sends one line."""
        self.out.write(json.dumps(answer) + "\n")


class Gate:
    """Holds a contestant at the beginning of each epoch until its turn has come.

    Attributes:
        planned: how many epochs there will be, for those who want to know.
    """

    def __init__(self, channel: Channel, spawned: float, planned: int) -> None:
        self.channel, self.requests = channel, iter(channel)
        self.start: tuple[float, float] | None = None
        self.spawned, self.planned = spawned, planned

    def next(self, weights: Callable[[], Arrays]) -> None:
        """Closes the epoch under way; returns when the next one is to begin.

        Args:
            weights: gives the parameters reached, if somebody asks.
        """
        if self.start is None:
            self.channel.say(ready=time.monotonic() - self.spawned)
        else:
            self.channel.say(**elapsed(self.start))
        for request in self.requests:
            if "run" in request:
                self.start = now()
                return
            self.channel.say(**answer(request, weights))
        raise SystemExit


def now() -> tuple[float, float]:
    """Seconds on the wall and seconds of this process on any core."""
    return time.perf_counter(), time.process_time()


def elapsed(start: tuple[float, float]) -> dict[str, float]:
    """Both since ``start``."""
    wall, cpu = now()
    return {"seconds": wall - start[0], "cpu": cpu - start[1]}


def answer(request: dict[str, Any], weights: Callable[[], Arrays]) -> dict[str, Any]:
    """What can be asked between slices: ``save`` to a file, or the ``memory`` used at most."""
    if "save" in request:
        np.savez(request["save"], **weights())
        return {}
    if "memory" in request:
        return {"peak_mb": peak_mb()}
    raise ValueError(f"Requests are run, save and memory; got {sorted(request)}.")


def peak_mb(status: Path = Path("/proc/self/status")) -> float:
    """The most memory that this process has held, in MiB.

    ``ru_maxrss`` would count what the parent held when it made this process.
    """
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def serve_steps(channel: Channel, setup: dict[str, Any]) -> None:
    """Sets a contestant up, tells how long that took, and runs slices of steps."""
    from benchmarks.speed.contestants import CONTESTANTS, make

    spawned, name = setup["spawned"], setup["contestant"]
    importlib.import_module(f"benchmarks.speed.{CONTESTANTS[name].module}")
    imported = time.monotonic() - spawned
    with np.load(setup["start"], allow_pickle=False) as file:
        arrays = dict(file)
    x, index = arrays.pop("x"), arrays.pop("index")
    contestant = make(name, Case(**setup["case"]), arrays, x, index)
    contestant.run(1)
    first = time.monotonic() - spawned
    contestant.run(WARM - 1)
    channel.say(imported=imported, first=first, warm=time.monotonic() - spawned)
    for request in channel:
        if "run" in request:
            start = now()
            contestant.run(request["run"])
            channel.say(**elapsed(start))
        else:
            channel.say(**answer(request, contestant.weights))


def serve_epochs(channel: Channel, setup: dict[str, Any]) -> None:
    """Lets a contestant train for as many epochs as are asked for."""
    from benchmarks.speed.contestants import EPOCHS

    entry = EPOCHS[setup["contestant"]]
    module = importlib.import_module(f"benchmarks.speed.{entry.module}")
    with np.load(setup["start"], allow_pickle=False) as file:
        arrays = dict(file)
    levels = arrays.pop("levels")
    gate = Gate(channel, setup["spawned"], setup["planned"])
    module.epochs(Case(**setup["case"]), arrays, levels, gate, **entry.options)


def main() -> None:
    """Reads what to be from the command line."""
    setup = json.loads(sys.argv[1])
    os.sched_setaffinity(0, setup["cores"])
    channel = Channel()
    {"steps": serve_steps, "epochs": serve_epochs}[setup["kind"]](channel, setup)


if __name__ == "__main__":
    main()
