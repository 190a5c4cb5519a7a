"""The benchmark's end of a contestant's process."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.cases import Arrays, Case

ROOT = Path(__file__).parents[2]
POOLS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")


class ContestantError(RuntimeError):
    """A contestant's process ended, or did not answer as agreed.

    Attributes:
        contestant: whose.
    """

    def __init__(self, contestant: str, said: str) -> None:
        super().__init__(f"{contestant}: {said}")
        self.contestant = contestant


class Place:
    """Where contestants run.

    Args:
        cores: the cores that all of them are pinned to, one thread a core.
        folder: for what they hand over, say and compile.
    """

    def __init__(self, cores: Sequence[int], folder: Path | str) -> None:
        self.cores, self.folder, self.made = list(cores), Path(folder), 0

    def file(self, suffix: str) -> Path:
        """A path that nobody has used."""
        self.made += 1
        return self.folder / f"{self.made}{suffix}"

    def environment(self, cache: Path) -> dict[str, str]:
        """One thread a core in every library, and nothing compiled before."""
        threads = {f"{pool}_NUM_THREADS": str(len(self.cores)) for pool in POOLS}
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        kept = {"TORCHINDUCTOR_CACHE_DIR": str(cache), "PYTHONPATH": path}
        return {
            **os.environ,
            **threads,
            **kept,
            "JAX_PLATFORMS": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
        }


class Worker:
    """A contestant in a process of its own.

    Args:
        place: where.
        kind: ``steps`` or ``epochs``.
        contestant: its name.
        case: what it trains.
        start: the file with first weights and data.
        cache: folder of compiled code; a fresh one if None.
        planned: how many epochs it may count on.

    Attributes:
        cache: where its compiled code is kept.
        ready: what it said when it was ready, in seconds since it was started.
        cores_used: the most that a slice used on average: no more than the place has.

    Raises:
        ContestantError: if it does not get ready.
    """

    def __init__(
        self,
        place: Place,
        kind: str,
        contestant: str,
        case: Case,
        start: Path,
        cache: Path | None = None,
        planned: int = 0,
    ) -> None:
        self.name, self.place, self.log = contestant, place, place.file(".log")
        self.cores_used = 0.0
        self.cache = cache or place.file(".cache")
        self.process = self._spawned(
            kind=kind,
            contestant=contestant,
            case=case._asdict(),
            start=str(start),
            cores=place.cores,
            planned=planned,
            spawned=time.monotonic(),
        )
        self.ready = self._answer()

    def _spawned(self, **setup: Any) -> subprocess.Popen:
        with self.log.open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "benchmarks.speed.worker", json.dumps(setup)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
                cwd=self.place.folder,
                env=self.place.environment(self.cache),
                start_new_session=True,
            )

    def _answer(self) -> dict[str, float]:
        line = self.process.stdout.readline()
        if line.startswith("{"):
            return json.loads(line)
        self.close()
        said = [part for part in self.log.read_text().splitlines() if part.strip()]
        raise ContestantError(self.name, said[-1] if said else "ended without a word")

    def ask(self, **request: Any) -> dict[str, float]:
        """Sends a request and waits for the answer.

        Raises:
            ContestantError: if there is none.
        """
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
        except BrokenPipeError as error:
            raise ContestantError(self.name, "its process has ended") from error
        return self._answer()

    def run(self, steps: int) -> float:
        """Seconds that so many steps took."""
        took = self.ask(run=steps)
        if took["seconds"] > 0.05:  # below that, two clocks read one after the other disagree
            self.cores_used = max(self.cores_used, took["cpu"] / took["seconds"])
        return took["seconds"]

    def weights(self) -> Arrays:
        """What it has reached."""
        path = self.place.file(".npz")
        self.ask(save=str(path))
        with np.load(path, allow_pickle=False) as file:
            return dict(file)

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
