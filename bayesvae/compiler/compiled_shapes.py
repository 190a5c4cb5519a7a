"""What is known about a function at inputs of one shape, and what may follow the function."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from bayesvae.compiler.captured_tensors import Reading
from bayesvae.compiler.tracing import Recorded

TRIAL = 20
"""Compiled calls that are timed before they are believed to be faster."""


class Tail(Protocol):
    """What follows a function and may be compiled with it, such as an optimiser's step.

    Attributes:
        layout: what the function's outputs mean, as the last call as written left it.
    """

    layout: Any

    def recorded(self, outputs: Sequence[Tensor]) -> Recorded | None:
        """A record that takes the function's outputs and `inputs`; None if there can be none."""

    def inputs(self) -> list[Tensor]:
        """Further tensors that the record takes."""

    def undo(self) -> None:
        """Takes back what `inputs` changed, for a run that failed."""

    def signature(self) -> Any:
        """What must not have changed since the record was made."""


class CompiledShape:
    """What is known about the function at inputs of one shape."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds: deque[float] = deque(maxlen=TRIAL)
        self.head: Recorded | None = None
        self.recording = 0.0
        self.run: Callable[..., Sequence[Tensor]] | None = None
        self.head_reads: Reading | None = None
        self.reads: Reading | None = None
        self.tailed = False
        self.tails = 0
        self.parted = 0
        self.layout: Any = None
        self.signature: Any = None
        self.trial: list[float] = []
        self.settled = False
        self.check_at = 0

    def start_over(self) -> None:
        """Keeps the record and forgets what was compiled of it."""
        self.run, self.reads, self.tailed = None, None, False
        self.trial, self.settled = [], False


class Outcome(NamedTuple):
    """What a call gave.

    Attributes:
        outputs: of the function, or of its tail where ``tailed``.
        tailed: whether the tail has run as well.
    """

    outputs: Sequence[Tensor]
    tailed: bool
