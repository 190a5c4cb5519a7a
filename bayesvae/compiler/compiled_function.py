"""Functions of tensors traced once and compiled: a Pyro program at the cost of its arithmetic.

The first call on inputs of some shape runs as written.  When compiling pays, a later call is
recorded (`bayesvae.compiler.tracing`), the next one is run both ways, from the same random
numbers, and the two are compared; only then is the record compiled and used.  So what Python
decides anew in every call (a counter, a number drawn by ``random``) is found out before it can do
harm, and once more each time the number of calls has doubled.

Tensors are never baked in: inputs, parameters, buffers and schedule values are read at every run.
"""

import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import pyro
import torch
from torch import Tensor, nn

from bayesvae.compiler import agreement, lowering, program_lines, tracing
from bayesvae.compiler.call_arguments import is_plain, put_together, taken_apart
from bayesvae.compiler.captured_tensors import Reading, Watch, effects, layout, unchanged
from bayesvae.compiler.compiled_shapes import TRIAL, CompiledShape, Outcome, Tail
from bayesvae.compiler.patches import handlers_around, one_thread
from bayesvae.compiler.tracing import Recorded

When = Literal["auto"] | bool
"""Compile "auto" where it pays, True at once (further shapes after many calls), False never."""

EXPECTED_SECONDS = 15.0
"""What compiling a training step takes where nothing is known yet: 4 to 20 s, measured."""
SAVED = 0.5
"""Share of a call's time that compiling is expected to save, a cautious guess for any size."""
GIVE_UP = 64
"""So many shapes that made place for others, and none compiled: it will not come to that."""
SHAPES = 8
"""At most so many shapes of inputs are compiled, then further ones run as written."""
LAYOUTS, TAILS = 3, 3
"""So many times other parameters may get a gradient, and an optimiser other settings."""
MANY = 1000
"""Calls from which on a further shape is compiled where the first was to be at once."""


class CompileError(RuntimeError):
    """A function that was to be compiled (``compile=True``) cannot be."""


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
        compiling: seconds that recording and compiling took so far.

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
        if not (when == "auto" or isinstance(when, bool)):
            raise ValueError(f'compile takes "auto", True or False; got {when!r}.')
        self.function, self.eager = function, eager or function
        self._shapes: dict[Any, CompiledShape] = {}
        self._watch, self._timed = Watch(modules), None
        self.when, self.tail, self.calls_planned = when, tail, calls
        self.eager_random, self.announce, self.name = eager_random, announce, name
        self.reason, self.compiling = "", 0.0
        self.count = self._dropped = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Sequence[Tensor]:
        """The outputs of the function."""
        return self.call(args, kwargs).outputs

    @property
    def is_compiled(self) -> bool:
        """Whether any shape runs compiled by now."""
        return any(shape.run is not None for shape in self._shapes.values())

    def call(self, args: tuple, kwargs: dict | None = None) -> Outcome:
        """The outputs of the function, or those of its tail where that ran as well.

        Raises:
            CompileError: if ``when`` is True and it cannot be compiled.
        """
        self.count += 1
        if self.when is False or handlers_around():
            return self._as_written(args, kwargs)
        tensors, fixed = taken_apart(args, kwargs, self._watch.double)
        shape, captured = self._shape(tensors, fixed)
        if shape is None:
            return self._as_written(args, kwargs)
        shape.calls += 1
        if shape.tailed and self.tail.signature() != shape.signature:
            shape.start_over()
        if shape.settled and shape.calls < shape.check_at:
            return self._fast(shape, tensors, captured)
        if shape.run is None or shape.calls >= shape.check_at:
            with one_thread:
                return self._slowly(shape, tensors, fixed, args, kwargs)
        with nullcontext() if shape.trial else one_thread:  # which the first of them compiles
            return self._on_trial(shape, tensors, captured, args, kwargs)

    def add(self, seconds: float) -> None:
        """Counts what the caller did with the last outputs as a part of that call."""
        if self._timed:
            self._timed[-1] += seconds

    # One call, four ways -----------------------------------------------------------------------

    def _as_written(self, args: tuple, kwargs: dict | None) -> Outcome:
        with one_thread:
            return Outcome(list(self.eager(*args, **(kwargs or {}))), False)

    def _fast(
        self, shape: CompiledShape, tensors: list[Tensor], captured: list[Tensor]
    ) -> Outcome:
        if self.tail is not None:
            self.tail.layout = shape.layout
        if not shape.tailed:
            return Outcome(shape.run(*tensors, *captured), False)
        return Outcome(shape.run(*tensors, *self.tail.inputs(), *captured), True)

    def _on_trial(
        self,
        shape: CompiledShape,
        tensors: list[Tensor],
        captured: list[Tensor],
        args: tuple,
        kwargs: dict | None,
    ) -> Outcome:
        """The first compiled calls: the very first compiles, the others show what it brings."""
        if not shape.trial:
            self.announce(True)
        start = time.perf_counter()
        try:
            # What torch says about itself while it compiles is not for the user.
            with nullcontext() if shape.trial else warnings.catch_warnings():
                if not shape.trial:
                    warnings.simplefilter("ignore")
                outcome = self._fast(shape, tensors, captured)
        except Exception as error:
            if shape.trial:
                raise
            if self.tail is not None and shape.tailed:
                self.tail.undo()
            self._give_up(f"compiling failed: {_first_line(error)}", error)
            return self._as_written(args, kwargs)
        finally:
            if not shape.trial:
                self.announce(False)
        shape.trial.append(time.perf_counter() - start)
        self._timed = shape.trial
        if len(shape.trial) == 1:
            taken = shape.recording + shape.trial[0]
            self.compiling += taken
            _costs.append(taken)
        if len(shape.trial) > TRIAL:
            shape.settled = True
            slower = statistics.median(shape.trial[1:]) > statistics.median(shape.seconds)
            if self.when == "auto" and slower:
                self.when, self.reason = False, "compiled code was slower than the program"
                self._shapes.clear()
        return outcome

    def _slowly(
        self,
        shape: CompiledShape,
        tensors: list[Tensor],
        fixed: Any,
        args: tuple,
        kwargs: dict | None,
    ) -> Outcome:
        """A call as written, with a look at what may be made of it."""
        recorded, captured = None, None
        if shape.head is not None:
            captured = shape.head_reads.now()
            if captured is None:  # of another kind than when it was recorded
                shape.head = None
        if captured is not None:
            with tracing.forked(captured), unchanged(self._watch.modules):
                recorded = shape.head(*tensors, *captured)
        known = self._watch.whole
        with nullcontext() if known else self._watch.taking_in():
            start = time.perf_counter()
            outcome = self._as_written(args, kwargs)
            shape.seconds.append(time.perf_counter() - start)
        if not known:
            self._shapes = {self._key(tensors, fixed): shape}
        self._timed = shape.seconds
        if recorded is not None:
            self._compare(shape, tensors, fixed, recorded, outcome.outputs)
        elif self._pays(shape):
            shape.layout = self._layout()
            start = time.perf_counter()
            shape.head = self._recorded(tensors, fixed)
            shape.recording = time.perf_counter() - start
            if shape.head is not None:
                shape.head_reads = Reading(shape.head.captured, self._watch.modules)
        return outcome

    def _layout(self) -> list | None:
        return None if self.tail is None else list(self.tail.layout)

    # From the program to compiled code ---------------------------------------------------------

    def _pays(self, shape: CompiledShape) -> bool:
        """Whether compiling now is expected to save more than it costs, from measured calls."""
        if self.when is True:
            return shape.calls >= MANY or not any(each.head for each in self._shapes.values())
        if len(shape.seconds) < 5:
            return False
        each, ahead = statistics.median(shape.seconds), shape.calls  # as long again as so far
        if self.calls_planned is not None:
            ahead = (self.calls_planned - self.count) * shape.calls / self.count
        return ahead * each * SAVED > max(_costs, default=EXPECTED_SECONDS)

    def _recorded(self, tensors: list[Tensor], fixed: Any) -> Recorded | None:
        lacking = lowering.missing_compiler()
        if lacking and all(t.device.type == "cpu" for t in tensors):
            self._give_up(lacking)
            return None

        def flat(*given: Tensor) -> Sequence[Tensor]:
            positional, named = put_together(given, fixed)
            return self.function(*positional, **named)

        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            self._give_up("an argument asks for a gradient; pass it detached")
            return None
        try:
            with unchanged(self._watch.modules) as assigned:
                recorded = tracing.record(flat, tensors)
        except Exception as error:
            cause = _first_line(error)
            if "get value out of a tracing tensor" in str(error):
                cause = "Python asks for the value of a tensor (use torch.where or a mask)"
            place = program_lines.place_of(error)
            self._give_up(f"{cause}, at {place}" if place else cause, error)
            return None
        if reason := effects(recorded, assigned, self._watch.modules):
            self._give_up(reason)
        return None if reason else recorded

    def _compare(
        self,
        shape: CompiledShape,
        tensors: list[Tensor],
        fixed: Any,
        recorded: list[Tensor],
        outputs: list[Tensor],
    ) -> None:
        """Believes a record that agrees with the program on other data, or gives up."""
        if self.tail is not None and not outputs[0].isfinite():
            return
        if not agreement.alike(self._layout(), shape.layout):
            shape.head, shape.parted = None, shape.parted + 1
            if shape.run is not None or shape.parted >= LAYOUTS:
                self._give_up(
                    "other parameters get a gradient than in the step before; pass what changes "
                    "as an argument"
                )
            return
        shown = self.tail.comparable if self.tail is not None else list
        apart = agreement.difference(shown(recorded), shown(outputs))
        if apart:
            again = self._recorded(tensors, fixed)
            if self.when is False:  # it has said why
                return
            where = again and agreement.first_difference(shape.head, again)
            place = f": {where}" if where else ""
            self._give_up(f"a trace gives other numbers than the program ({apart}){place}")
            return
        shape.check_at = max(2 * shape.calls, TRIAL)
        if shape.run is None:
            self._build(shape, outputs)

    def _build(self, shape: CompiledShape, outputs: list[Tensor]) -> None:
        whole, tail = shape.head, None
        if self.tail is not None and shape.tails < TAILS:
            tail = self.tail.recorded(outputs)
            shape.tails += 1
        if tail is not None:
            whole = tracing.chained(shape.head, tail)
            shape.signature = self.tail.signature()
        shape.tailed = tail is not None
        shape.reads = Reading(whole.captured, self._watch.modules, shape.head_reads)
        shape.run = lowering.compiled(whole, self.eager_random)

    def _give_up(self, reason: str, cause: BaseException | None = None) -> None:
        """Runs as written from now on, saying why."""
        if self.when is True:
            raise CompileError(
                f'{self.name} cannot be compiled: {reason}. Use compile="auto" or compile=False.'
            ) from cause
        self.when, self.reason = False, reason
        self._shapes.clear()
        level = program_lines.frames_of_the_package()
        warnings.warn(f"{self.name} runs uncompiled: {reason}", RuntimeWarning, stacklevel=level)

    # What a trace depends on -------------------------------------------------------------------

    def _shape(
        self, tensors: list[Tensor], fixed: Any
    ) -> tuple[CompiledShape | None, list[Tensor] | None]:
        """What is known at these inputs, and what compiled code reads besides.

        None where nothing will be compiled.
        """
        key = self._key(tensors, fixed)
        try:
            shape = self._shapes.get(key)
        except TypeError:
            shape = None
        if shape is None and not is_plain(fixed):
            self._give_up("an argument is neither a tensor nor a plain value; pass tensors")
            return None, None
        captured = None
        if shape is not None and shape.run is not None:
            captured = shape.reads.now()
            if captured is None:
                shape = None
                del self._shapes[key]
        if shape is None:
            shape = self._new(key)
        return shape, captured

    def _key(self, tensors: list[Tensor], fixed: Any) -> tuple:
        modes = self._watch.modes()
        if modes is None:  # a module was put in another's place
            self._shapes.clear()
            modes = self._watch.modes()
        return (
            fixed,
            modes,
            id(pyro.get_param_store()._params),
            None if self.tail is None else self.tail.held(),
            torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"),
            torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
            torch.get_default_dtype(),
            *map(layout, tensors),
        )

    def _new(self, key: Any) -> CompiledShape | None:
        """A place for another shape, if need be that of the one seen least; None without any."""
        if len(self._shapes) >= SHAPES:
            waiting = {k: e.calls for k, e in self._shapes.items() if e.head is None}
            if not waiting:
                return None
            del self._shapes[min(waiting, key=waiting.get)]
            self._dropped += 1
            if self._dropped >= GIVE_UP and not self.is_compiled:
                self._give_up(
                    "its arguments have another shape, or another value that is no tensor, at "
                    "almost every call; pass values that change as floats or tensors"
                )
                return None
        self._shapes[key] = CompiledShape()
        return self._shapes[key]


_costs: list[float] = []
"""Seconds that recording and compiling took so far in this process."""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
