"""Functions of tensors traced once and compiled: a Pyro program at the cost of its arithmetic.

The first call on inputs of some shape runs as written.  When compiling pays, a later call is
recorded (`bayesvae.tracing`), the next one is run both ways, from the same random numbers, and the
two are compared; only then is the record compiled and used.  So what Python decides anew in every
call (a counter, a number drawn by ``random``) is found out before it can do harm, and once more
each time the number of calls has doubled.

Nothing is baked in that is a tensor: inputs, parameters, buffers and schedule values are read when
the compiled code runs.
"""

import statistics
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple, Protocol

import pyro
import torch
from torch import Tensor, nn

from bayesvae import tracing
from bayesvae.calls import difference, layout, put_together, taken_apart
from bayesvae.tracing import Recorded

When = Literal["auto"] | bool
"""Whether to compile: "auto" where it pays; True at once, further shapes of inputs after many
calls, and an error if it cannot be done; False never."""

EXPECTED_SECONDS = 15.0
"""What compiling a training step takes where nothing is known yet: 4 to 20 s, measured."""
SAVED = 0.5
"""Share of a call's time that compiling is expected to save, a cautious guess for any size."""
SHAPES = 8
"""At most so many shapes of inputs are compiled, then further ones run as written."""
MANY = 1000
"""Calls from which on a further shape is compiled where the first was to be at once."""
TRIAL = 20
"""Compiled calls that are timed before they are believed to be faster."""


class CompileError(RuntimeError):
    """A function that was to be compiled (``compile=True``) cannot be."""


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

    def signature(self) -> Any:
        """What must not have changed since the record was made."""


class _Entry:
    """What is known about the function at inputs of one shape."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds: deque[float] = deque(maxlen=TRIAL)
        self.head: Recorded | None = None
        self.run: Callable[..., Sequence[Tensor]] | None = None
        self.read_by_head: list[tuple[Any, Any]] = []
        self.references: list[tuple[Any, Any]] = []
        self.tailed = False
        self.layout: Any = None
        self.signature: Any = None
        self.trial: list[float] = []
        self.settled = False
        self.check_at = 0


class Outcome(NamedTuple):
    """What a call gave.

    Attributes:
        outputs: of the function, or of its tail where ``tailed``.
        tailed: whether the tail has run as well.
    """

    outputs: Sequence[Tensor]
    tailed: bool


class Compiled:
    """A function of tensors that runs as written at first and compiled as soon as that pays.

    Args:
        function: ``(*args) -> sequence of tensors``; tensors and numbers with a decimal point
            among the arguments may change from call to call, anything else is fixed in a trace.
            It must change nothing.
        modules: whose parameters and buffers it reads; their modes are part of what is traced.
        when: "auto", True or False.
        eager: the same function for calls as written, if that is another one.
        tail: what the caller does with the outputs, to be compiled with the function.
        calls: how many calls there will be, if that is known; else past time is the guide.
        eager_random: draw the program's own random numbers on a CUDA device too.
        announce: told True when compiling begins and False when it is done.
        name: what to call it in messages.

    Attributes:
        reason: why it is not compiled, in words; empty unless something prevented it.

    Example:
        >>> squared = Compiled(lambda x: [x**2], when=False)
        >>> squared(torch.tensor(3.0))
        [tensor(9.)]
    """

    def __init__(
        self,
        function: tracing.TensorFunction,
        modules: Iterable[nn.Module] = (),
        *,
        when: When = "auto",
        eager: tracing.TensorFunction | None = None,
        tail: Tail | None = None,
        calls: int | None = None,
        eager_random: bool = False,
        announce: Callable[[bool], None] = lambda busy: None,
        name: str = "this function",
    ) -> None:
        if when not in ("auto", True, False):
            raise ValueError(f'compile takes "auto", True or False; got {when!r}.')
        self.function, self.eager = function, eager or function
        self.modules = list({id(m): m for root in modules for m in root.modules()}.values())
        self._parameters = [p for m in self.modules for p in m.parameters(recurse=False)]
        self.when, self.tail, self.calls_planned = when, tail, calls
        self.eager_random, self.announce, self.name = eager_random, announce, name
        self.reason = ""
        self.count = 0
        self._entries: dict[Any, _Entry] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Sequence[Tensor]:
        """The outputs of the function."""
        return self.call(args, kwargs).outputs

    @property
    def is_compiled(self) -> bool:
        """Whether any shape runs compiled by now."""
        return any(entry.run is not None for entry in self._entries.values())

    def call(self, args: tuple, kwargs: dict | None = None) -> Outcome:
        """The outputs of the function, or those of its tail where that ran as well.

        Raises:
            CompileError: if ``when`` is True and it cannot be compiled.
        """
        self.count += 1
        if self.when is False:
            return self._as_written(args, kwargs)
        tensors, fixed = taken_apart(args, kwargs)
        entry = self._entry(tensors, fixed)
        if entry is None:
            return self._as_written(args, kwargs)
        entry.calls += 1
        if entry.settled and entry.calls < entry.check_at:
            return self._fast(entry, tensors)
        if entry.run is None or entry.calls >= entry.check_at:
            return self._slowly(entry, tensors, fixed, args, kwargs)
        return self._on_trial(entry, tensors, args, kwargs)

    # One call, four ways -----------------------------------------------------------------------

    def _as_written(self, args: tuple, kwargs: dict | None) -> Outcome:
        return Outcome(list(self.eager(*args, **(kwargs or {}))), False)

    def _fast(self, entry: _Entry, tensors: list[Tensor]) -> Outcome:
        captured = [owner[name] for owner, name in entry.references]
        if self.tail is not None:
            self.tail.layout = entry.layout
        if not entry.tailed:
            return Outcome(entry.run(*tensors, *captured), False)
        if self.tail.signature() != entry.signature:
            self._without_tail(entry)
            return self._fast(entry, tensors)
        return Outcome(entry.run(*tensors, *self.tail.inputs(), *captured), True)

    def _on_trial(
        self, entry: _Entry, tensors: list[Tensor], args: tuple, kwargs: dict | None
    ) -> Outcome:
        """The first compiled calls: the very first compiles, the others show what it brings."""
        if not entry.trial:
            self.announce(True)
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                if not entry.trial:  # of torch about itself while it compiles
                    warnings.simplefilter("ignore")
                outcome = self._fast(entry, tensors)
        except Exception as error:
            if entry.trial:
                raise
            self._give_up(f"compiling failed: {_first_line(error)}", error)
            return self._as_written(args, kwargs)
        entry.trial.append(time.perf_counter() - start)
        if len(entry.trial) == 1:
            _costs.append(entry.trial[0])
            self.announce(False)
        if len(entry.trial) > TRIAL:
            entry.settled = True
            slower = statistics.median(entry.trial[1:]) > statistics.median(entry.seconds)
            if self.when == "auto" and slower:
                self.when, self.reason = False, "compiled code was slower than the program"
        return outcome

    def _slowly(
        self,
        entry: _Entry,
        tensors: list[Tensor],
        fixed: Any,
        args: tuple,
        kwargs: dict | None,
    ) -> Outcome:
        """A call as written, with a look at what may be made of it."""
        recorded = None
        if entry.head is not None:
            with torch.random.fork_rng():
                captured = [owner[name] for owner, name in entry.read_by_head]
                recorded = entry.head(*tensors, *captured)
        start = time.perf_counter()
        outcome = self._as_written(args, kwargs)
        entry.seconds.append(time.perf_counter() - start)
        if recorded is not None:
            self._compare(entry, tensors, fixed, recorded, outcome.outputs)
        elif self._pays(entry):
            entry.head = self._recorded(tensors, fixed)
            if entry.head is not None:
                entry.read_by_head = list(self._references(entry.head.captured))
        return outcome

    # From the program to compiled code ---------------------------------------------------------

    def _pays(self, entry: _Entry) -> bool:
        """Whether compiling now is expected to save more than it costs, from measured calls."""
        if self.when is True:
            first = not any(each.head for each in self._entries.values())
            return first or entry.calls >= MANY
        if len(entry.seconds) < 5:
            return False
        each = statistics.median(entry.seconds)
        if self.calls_planned is None:
            ahead = entry.calls  # as long again as it has been running
        else:
            ahead = (self.calls_planned - self.count) * entry.calls / self.count
        return ahead * each * SAVED > max(_costs, default=EXPECTED_SECONDS)

    def _recorded(self, tensors: list[Tensor], fixed: Any) -> Recorded | None:
        lacking = tracing.missing_compiler()
        if lacking and all(t.device.type == "cpu" for t in tensors):
            self._give_up(lacking)
            return None

        def flat(*given: Tensor) -> Sequence[Tensor]:
            positional, named = put_together(given, fixed)
            return self.function(*positional, **named)

        try:
            return tracing.record(flat, tensors)
        except Exception as error:
            cause = _first_line(error)
            if "get value out of a tracing tensor" in str(error):
                cause = "Python asks for the value of a tensor (use torch.where or a mask)"
            self._give_up(f"{cause}, at {tracing.place_of(error)}", error)
            return None

    def _compare(
        self,
        entry: _Entry,
        tensors: list[Tensor],
        fixed: Any,
        recorded: list[Tensor],
        outputs: list[Tensor],
    ) -> None:
        """Believes a record that agrees with the program on other data, or gives up."""
        apart = difference(recorded, outputs)
        if apart:
            again = self._recorded(tensors, fixed)
            where = again and tracing.first_difference(entry.head, again)
            place = f": {where}" if where else ""
            self._give_up(f"a trace gives other numbers than the program ({apart}){place}")
            return
        entry.check_at = max(2 * entry.calls, TRIAL)
        if entry.run is None:
            self._build(entry, outputs)

    def _build(self, entry: _Entry, outputs: list[Tensor]) -> None:
        whole, tail = entry.head, None
        if self.tail is not None:
            tail, entry.layout = self.tail.recorded(outputs), self.tail.layout
        if tail is not None:
            whole = tracing.chained(entry.head, tail)
            entry.signature = self.tail.signature()
        entry.tailed = tail is not None
        entry.references = list(self._references(whole.captured))
        entry.run = tracing.compiled(whole, self.eager_random)

    def _without_tail(self, entry: _Entry) -> None:
        entry.tailed = False
        entry.references = entry.read_by_head
        entry.run = tracing.compiled(entry.head, self.eager_random)
        entry.settled, entry.trial = False, []

    def _give_up(self, reason: str, cause: BaseException | None = None) -> None:
        """Runs as written from now on, saying why."""
        if self.when is True:
            raise CompileError(
                f'{self.name} cannot be compiled: {reason}. Use compile="auto" or compile=False.'
            ) from cause
        self.when, self.reason = False, reason
        self._entries.clear()
        warnings.warn(f"{self.name} runs uncompiled: {reason}", RuntimeWarning, stacklevel=5)

    # What a trace depends on -------------------------------------------------------------------

    def _entry(self, tensors: list[Tensor], fixed: Any) -> _Entry | None:
        """What is known at these inputs; None where nothing will be compiled."""
        modes = tuple([m.training for m in self.modules])
        frozen = tuple([p.requires_grad for p in self._parameters])
        key = (fixed, modes, frozen, torch.get_default_dtype(), *[layout(t) for t in tensors])
        try:
            entry = self._entries.get(key)
        except TypeError:
            self._give_up("an argument is neither a tensor nor a plain value; pass tensors")
            return None
        if entry is None:
            if len(self._entries) >= SHAPES:
                return None
            entry = self._entries[key] = _Entry()
        return entry

    def _references(self, captured: Sequence[Tensor]) -> Iterable[tuple[Any, Any]]:
        """Where each captured tensor is kept, so that one put in its place is read instead."""
        kept = chain.from_iterable((m._parameters, m._buffers, vars(m)) for m in self.modules)
        owners = (*kept, pyro.get_param_store()._params)
        found = {
            id(value): (owner, name)
            for owner in owners
            for name, value in owner.items()
            if isinstance(value, Tensor)
        }
        for tensor in captured:
            yield found.get(id(tensor), ((tensor,), 0))


_costs: list[float] = []
"""Seconds that compiling took so far in this process."""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
