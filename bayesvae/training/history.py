"""The history of a fit: epochs, best state, and the files that keep both."""

import csv
import io
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import samestat
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayesvae.compiler import Compiled, When
from bayesvae.core import files, programs
from bayesvae.core.pair import Pair, evaluation_mode, on_device_of
from bayesvae.data import sequential
from bayesvae.objectives import elbo
from bayesvae.training.check import non_finite

AT_ONCE = 50
"""On a GPU so many losses are read together, because reading one waits for the device."""


class Epoch(NamedTuple):
    """One pass over the data; nats per datum, higher is better.

    Attributes:
        epoch: its number, from 1.
        step: optimisation steps so far.
        objective: mean of the objective over the pass, as trained (with its KL weight).
        validation: ELBO on the validation data afterwards, NaN without them, -inf where it is no
            number.
        kl_weight: at the last step.
        seconds: since training began.
    """

    epoch: int
    step: int
    objective: float
    validation: float
    kl_weight: float
    seconds: float

    @property
    def score(self) -> float:
        """What "best" is judged by: validation where there is one, else the objective."""
        return self.objective if math.isnan(self.validation) else self.validation


class History(NamedTuple):
    """What a fit leaves behind.

    Attributes:
        epochs: one entry a pass.
        best: the entry with the highest score.
        best_state: the pair's state then, for ``pair.load_state_dict``.
        last_state: the pair's state at the end, which the pair holds.
        compiled: whether the steps ran compiled in the end.
        compiling: seconds of the training that went into compiling them.
    """

    epochs: tuple[Epoch, ...]
    best: Epoch
    best_state: dict[str, Tensor]
    last_state: dict[str, Tensor]
    compiled: bool = False
    compiling: float = 0.0


class NonFiniteError(FloatingPointError):
    """A loss or a state that is not finite ended the training.

    Attributes:
        history: what was reached before; without epochs, its best is None and its states are those
            of the beginning.
    """

    def __init__(self, text: str, history: History) -> None:
        super().__init__(text)
        self.history = history

    def __reduce__(self) -> tuple:
        """What a copy is made of, in another process too."""
        return type(self), (str(self), self.history)


class Record:
    """The running history of a fit, and its files.

    Args:
        pair: what is trained.
        validation: unseen data, None for no validation.
        batch_size: of the validation.
        size: N, what the data plate stands for.
        out: folder for the files, None for no files.
        compile: whether the validation may be compiled.
    """

    def __init__(
        self,
        pair: Pair,
        validation: Any,
        batch_size: int,
        size: int,
        out: Path | str | None,
        compile: When = False,
    ) -> None:
        self.pair, self.size, self.out = pair, size, None if out is None else Path(out)
        self.unseen, self.folder = None, None
        self.unwritten: Epoch | None = None
        if validation is not None:
            self.unseen = sequential(validation, batch_size)
        model, guide = (programs.sized(p, size) for p in (pair.model, pair.guide))
        self.bound = Compiled(
            lambda x, index: [elbo(model, guide, x, index)],
            [pair],
            when="auto" if compile else False,
            name="The validation of fit",
        )
        self.pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self.start, self.steps = time.perf_counter(), 0
        self.values: list[float] = []
        self.data = 0
        self.epochs: list[Epoch] = []
        self.best: Epoch | None = None
        self.best_state: dict[str, Tensor] = {}
        self.sound = self._copies()
        # A buffer may hold infinities on purpose, as a mask does.
        self.watched = {name for name, value in self.sound.items() if _is_finite(value)}

    def step(self, loss: Tensor, kl_weight: float, x: Tensor, index: Tensor) -> None:
        """Takes in a step.

        Args:
            loss: minus the objective, ``()``, nats per datum.
            kl_weight: the weight that it was taken with.
            x: the batch.
            index: its positions.

        Raises:
            NonFiniteError: at the first loss that is not finite, with its step and sites.
        """
        self.pending.append((loss, x, index))
        self.steps, self.kl_weight = self.steps + 1, float(kl_weight)
        if not loss.is_cuda or len(self.pending) >= AT_ONCE:
            self._read()

    def _read(self) -> None:
        """Reads the losses that wait to be read."""
        pending, self.pending = self.pending, []
        if not pending:
            return
        losses = torch.stack([loss for loss, _, _ in pending]).tolist()
        for back, (loss, (_, x, index)) in enumerate(zip(losses, pending, strict=True)):
            if not math.isfinite(loss):
                step = self.steps - len(pending) + back
                raise self._ended(non_finite(self.pair, x, index, step, loss))
            self.values.append(-loss * len(x))
            self.data += len(x)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Closes the epoch that an interruption cuts short, so that its work is not lost."""
        try:
            yield
        except KeyboardInterrupt:
            if self.unwritten is not None:
                self._write(self.unwritten)
            elif self.data or self.pending:
                self.epoch()
            raise

    def _held(self) -> dict[str, Tensor]:
        """What the pair holds, as it is."""
        return dict([*self.pair.named_parameters(), *self.pair.named_buffers()])

    def _copies(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self._held().items()}

    def _bad(self) -> list[str]:
        """The names of what is not finite any more."""
        held = self._held().items()
        return [name for name, value in held if name in self.watched and not _is_finite(value)]

    def _ended(self, text: str) -> NonFiniteError:
        """The error, once the pair is back in its last finite state."""
        if self._bad():
            with torch.no_grad():
                for name, value in self._held().items():
                    value.copy_(self.sound[name])
        return NonFiniteError(text, self.history(False, 0.0))

    def epoch(self) -> str:
        """Closes an epoch; returns it in words for the progress bar.

        Raises:
            NonFiniteError: if its last step left parameters that are not finite.
        """
        self._read()
        if bad := self._bad():
            raise self._ended(
                f"Parameters must be finite at step {self.steps}. Cause: parameters {bad} are "
                "not: the step before was too long. The pair is back in the state of the epoch "
                "before. Lower the learning rate, or bound the gradient with clip_norm."
            )
        mean = math.fsum(self.values) / self.data
        validation, seconds = self._validate(), time.perf_counter() - self.start
        row = Epoch(len(self.epochs) + 1, self.steps, mean, validation, self.kl_weight, seconds)
        # Only now: an interruption while validating finds the epoch's values still there.
        self.values, self.data = [], 0
        self.epochs.append(row)
        self.sound = self._copies()
        if self._is_best(row):
            self.best, self.best_state = row, self._state()
        if self.out is not None:
            self.unwritten = row
            self._write(row)
            self.unwritten = None
        unseen = "" if math.isnan(row.validation) else f", validation {row.validation:.2f}"
        return f"objective {row.objective:.2f}{unseen} nats per datum"

    def _is_best(self, row: Epoch) -> bool:
        """Objectives under different KL weights do not compare; the later one then stands."""
        if self.best is None or row.score > self.best.score:
            return True
        return math.isnan(row.validation) and row.kl_weight != self.best.kl_weight

    def history(self, compiled: bool, compiling: float) -> History:
        """What the fit leaves behind."""
        epochs, state = tuple(self.epochs), self._state()
        return History(epochs, self.best, self.best_state or state, state, compiled, compiling)

    def _state(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.pair.state_dict().items()}

    @torch.no_grad()
    def _validate(self) -> float:
        """The ELBO per datum on unseen data, the training stream of random numbers untouched."""
        if self.unseen is None:
            return math.nan
        total = seen = 0
        with torch.random.fork_rng(), evaluation_mode(self.pair):
            for x, index in self.unseen:
                x, index = on_device_of(self.pair, x, index)
                total += self.bound(x, index)[0].item() * len(x)
                seen += len(x)
        # NaN stands for no validation, and is no reason to take a state for the best.
        return -math.inf if math.isnan(total) else total / seen

    def _require_folder(self) -> None:
        """Refuses to write into a folder that is another than it was at the epoch before.

        Raises:
            FileNotFoundError: if it was removed, moved or replaced.
        """
        there = self.out.stat() if self.out.is_dir() else None
        if self.folder is not None and (there is None or not samestat(there, self.folder)):
            raise FileNotFoundError(
                f"{self.out} was removed, moved or replaced while training, so that what is "
                "reached now would stand alone. Leave the folder in place, and train again."
            )

    def _write(self, row: Epoch) -> None:
        self._require_folder()
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(Epoch._fields)
        writer.writerows(self.epochs)
        files.write_aside(
            self.out / "metrics.csv", lambda aside: aside.write_text(text.getvalue())
        )
        files.save_state(self.out / "last.pt", self._state())
        if row is self.best:
            files.save_state(self.out / "best.pt", self.best_state)
        self.folder = self.out.stat()


def _is_finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())
