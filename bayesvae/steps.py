"""One optimisation step: a loss and its gradients, then the optimisers, compiled together.

Any torch optimiser whose step is made of tensor operations joins the graph, its rates and step
counts as tensors; others (sparse ones, those that count in Python) run as they are after a
compiled gradient.  A step whose loss is not finite moves nothing.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor, nn
from torch.nn.functional import embedding
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from bayesvae import tracing
from bayesvae.compiled import Compiled, When
from bayesvae.optimizers import clipped_adam_step, count_in_tensors
from bayesvae.tracing import Recorded

Clip = Callable[[list[Tensor]], None]
"""Changes the gradients of parameters in place before a step."""


class Step:
    """Descends a loss: ``step(*args)`` moves the parameters once and returns the loss.

    Args:
        loss: ``(*args) -> Tensor ()``; tensors and floats among the arguments may change.
        parameters: those to move.
        optimizers: hold them; or a function that tells them, once ``take`` has made them.
        modules: whose parameters and buffers the loss reads.
        clip: changes gradients in place before the step.
        take: moves parameters by their gradients in a call as written, clipping included, if that
            is not just every optimiser's step.
        eager: ``(*args) -> loss``, which leaves gradients in ``.grad``, if calls as written are
            to be made by other means than ``loss``.
        when: "auto", True or False, as in `bayesvae.compiled.Compiled`.
        calls: how many steps there will be, if that is known.
        eager_random: draw the program's own random numbers on a CUDA device too.
        announce: told True when compiling begins and False when it is done.
        name: what to call the step in messages.
    """

    def __init__(
        self,
        loss: Callable[..., Tensor],
        parameters: Sequence[Tensor],
        optimizers: Sequence[Optimizer] | Callable[[], Sequence[Optimizer]],
        modules: Sequence[nn.Module] = (),
        *,
        clip: Clip | None = None,
        take: Callable[[list[Tensor]], None] | None = None,
        eager: Callable[..., Tensor] | None = None,
        when: When = "auto",
        calls: int | None = None,
        eager_random: bool = False,
        announce: Callable[[bool], None] = lambda busy: None,
        name: str = "this step",
    ) -> None:
        self.loss, self._eager = loss, eager
        self.update = Update(list(parameters), optimizers, clip, take)
        self.compiled = Compiled(
            self._recordable,
            modules,
            when=when,
            eager=self._as_written,
            tail=self.update,
            calls=calls,
            eager_random=eager_random,
            announce=announce,
            name=name,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Takes one step; returns the loss before it, ``()``, without waiting for a GPU."""
        outcome = self.compiled.call(args, kwargs)
        start = time.perf_counter()
        self.update.finish(outcome.outputs, outcome.tailed)
        if not outcome.tailed:
            self.compiled.add(time.perf_counter() - start)
        return outcome.outputs[0]

    def _as_written(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Loss and gradients by autograd; a sparse gradient as its indices and values."""
        if self._eager is None:
            with torch.enable_grad():
                loss = self.loss(*args, **kwargs)
            loss.backward(inputs=[p for p in self.update.parameters if p.requires_grad])
        else:
            loss = self._eager(*args, **kwargs)
        return [loss.detach(), *self.update.collected()]

    def _recordable(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        """The same in a form that a trace can hold: looked-up rows are leaves of their own."""
        with torch.enable_grad(), _LookedUp(self.update.tables()) as rows:
            loss = self.loss(*args, **kwargs)
            leaves = [rows.of(p) if sparse else [p] for p, sparse in self.update.layout]
            gradients = iter(torch.autograd.grad(loss, [leaf for each in leaves for leaf in each]))
        outputs = [loss.detach()]
        for (parameter, sparse), each in zip(self.update.layout, leaves, strict=True):
            found = [next(gradients) for _ in each]
            if sparse:
                outputs.append(torch.cat([index.flatten() for index in rows.indices(parameter)]))
                found = [torch.cat([g.flatten(0, -2) for g in found])]
            outputs += found
        return outputs


class _LookedUp(TorchFunctionMode):
    """Makes the rows that a table is asked for leaves of the gradient, instead of the table."""

    def __init__(self, tables: Sequence[Tensor]) -> None:
        super().__init__()
        self._tables = {id(table): [] for table in tables}

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if function is embedding and id(args[1]) in self._tables:
            index, table = args[:2]
            rows = table.detach()[index].requires_grad_()
            self._tables[id(table)].append((index, rows))
            padding = (kwargs or {}).get("padding_idx", args[2] if len(args) > 2 else None)
            if padding is None:
                return rows
            is_padding = (index == padding % len(table)).unsqueeze(-1)
            return torch.where(is_padding, rows.detach(), rows)
        return function(*args, **(kwargs or {}))

    def of(self, table: Tensor) -> list[Tensor]:
        """The rows looked up so far."""
        return [rows for _, rows in self._tables[id(table)]]

    def indices(self, table: Tensor) -> list[Tensor]:
        """Where they stand in the table."""
        return [index for index, _ in self._tables[id(table)]]


class Update:
    """The optimisers' step on given gradients, as Python runs it or as a graph.

    Args:
        parameters: what is trained.
        optimizers: hold the parameters; or a function that tells them.
        clip: changes gradients in place first.
        take: moves parameters as a whole in place of the optimisers.

    Attributes:
        layout: the parameters that got a gradient, each with whether that is sparse.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        optimizers: Sequence[Optimizer] | Callable[[], Sequence[Optimizer]],
        clip: Clip | None = None,
        take: Callable[[list[Tensor]], None] | None = None,
    ) -> None:
        self.parameters, self.clip, self.take = parameters, clip, take
        self.optimizers = optimizers if callable(optimizers) else lambda: optimizers
        self._given = () if callable(optimizers) else optimizers
        self.layout: list[tuple[Tensor, bool]] = []
        self._joined: list[Optimizer] = []
        self._rates: list[Tensor] = []
        self._known_rates: list[float] = []
        self._kept: list[Any] = []

    def tables(self) -> list[Tensor]:
        """Parameters with sparse gradients."""
        return [parameter for parameter, sparse in self.layout if sparse]

    def held(self) -> tuple:
        """How many parameters the optimisers hold that were given from the start."""
        return tuple([len(group["params"]) for o in self._given for group in o.param_groups])

    def comparable(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Loss and gradients with sparse ones written out, so that order does not matter."""
        loss, *given = outputs
        rest = iter(given)
        return [loss] + [
            torch.zeros_like(p).index_add_(0, next(rest), next(rest)) if sparse else next(rest)
            for p, sparse in self.layout
        ]

    def collected(self) -> list[Tensor]:
        """Takes the gradients off the parameters; a sparse one as indices and values."""
        got = [(p, p.grad) for p in self.parameters if p.grad is not None]
        self.layout = [(p, g.is_sparse) for p, g in got]
        outputs = []
        for parameter, gradient in got:
            parameter.grad = None
            if gradient.is_sparse:
                outputs += [gradient._indices()[0], gradient._values()]
            else:
                outputs.append(gradient)
        return outputs

    def finish(self, outputs: Sequence[Tensor], joined: bool) -> None:
        """Steps with the optimisers that are not part of a graph.

        Args:
            outputs: loss and gradients; of these only the sparse ones where ``joined``.
            joined: whether a graph has taken the other optimisers' steps.
        """
        loss, *gradients = outputs
        left = [o for o in self.optimizers() if not (joined and o in self._joined)]
        for group in self._groups() if joined else ():
            if "lrd" in group and not torch.isfinite(loss):
                group["lr"] /= group["lrd"]
        if (joined and not left) or not torch.isfinite(loss):
            return
        given = iter(gradients)
        moved = [(p, sparse) for p, sparse in self.layout if sparse or not joined]
        for parameter, sparse in moved:
            if sparse:
                index, values = next(given), next(given)
                parameter.grad = torch.sparse_coo_tensor(
                    index[None], values, parameter.shape, check_invariants=False
                )
            else:
                parameter.grad = next(given)
        if self.take is not None and not joined:
            self.take([p for p, _ in moved])
        else:
            if self.clip is not None:
                self.clip([p for p, _ in moved])
            for optimizer in left:
                optimizer.step()
        for parameter, _ in moved:
            parameter.grad = None

    # The tail of a compiled step ---------------------------------------------------------------

    def recorded(self, outputs: Sequence[Tensor]) -> Recorded | None:
        """A graph from loss, gradients and rates to the loss, which moves the parameters.

        It returns sparse gradients too.  None where no optimiser can join a graph, or where
        gradients are clipped together with sparse ones.
        """
        tables = {id(table) for table in self.tables()}
        self._joined = (
            []
            if tables and self.clip
            else [
                o
                for o in self.optimizers()
                if not any(id(p) in tables for p in _held(o))
                and not (o._optimizer_step_pre_hooks or o._optimizer_step_post_hooks)
            ]
        )
        if not self._joined:
            return None
        device = outputs[0].device
        self._rates = [torch.tensor(float(g["lr"]), device=device) for g in self._rated()]
        self._known_rates = [float(group["lr"]) for group in self._rated()]
        self._kept = [o.state for o in self._joined]
        for optimizer in self._joined:
            _step_counts_to(optimizer, device)
            if type(optimizer) is ClippedAdam:
                count_in_tensors(optimizer)
        state = self._state()
        copies = [tensor.clone() for tensor in state]
        try:
            return tracing.record(self._moved, [t.clone() for t in (*outputs, *self._rates)])
        except _Untraceable:
            self._joined = []
            return None
        finally:
            with torch.no_grad():
                for tensor, copy in zip(state, copies, strict=True):
                    tensor.copy_(copy)

    def inputs(self) -> list[Tensor]:
        """The learning rates of the next step, as tensors; asked for once a step."""
        for i, group in enumerate(self._rated()):
            if "lrd" in group:  # Pyro's ClippedAdam decays its rate by itself
                group["lr"] *= group["lrd"]
            if isinstance(group["lr"], Tensor):
                self._rates[i].copy_(group["lr"])
            elif group["lr"] != self._known_rates[i]:
                self._known_rates[i] = group["lr"]
                self._rates[i].fill_(group["lr"])
        return self._rates

    def signature(self) -> list:
        """Every hyperparameter but the rates."""
        return [
            *(
                [v for k, v in group.items() if k not in ("params", "lr")]
                for group in self._groups()
            ),
            [(id(o.state), len(o.state)) for o in self._joined],
        ]

    def _rated(self) -> Iterator[dict]:
        return (group for group in self._groups() if "lr" in group)

    def _groups(self) -> Iterator[dict]:
        return (group for optimizer in self._joined for group in optimizer.param_groups)

    def _state(self) -> list[Tensor]:
        """Everything that a step of the joined optimisers changes."""
        moved = [p for p, sparse in self.layout if not sparse]
        kept = (o.state[p].values() for o in self._joined for p in moved if p in o.state)
        return moved + [v for values in kept for v in values if isinstance(v, Tensor)]

    def _moved(self, loss: Tensor, *rest: Tensor) -> list[Tensor]:
        """The step on tensors alone; nothing moves where the loss is not finite."""
        given, rates = iter(rest), rest[len(rest) - len(self._rates) :]
        sparse_ones: list[Tensor] = []
        for parameter, sparse in self.layout:
            if sparse:
                sparse_ones += [next(given), next(given)]
            else:
                parameter.grad = next(given)
        state = self._state()
        before = [tensor.detach().clone() for tensor in state]
        if self.clip is not None:
            self.clip([p for p, _ in self.layout])
        try:
            with _as_tensors(self._joined, rates), torch.no_grad():
                for optimizer in self._joined:
                    if type(optimizer) is ClippedAdam:
                        clipped_adam_step(optimizer)
                    else:
                        optimizer.step()
        finally:
            for parameter, _ in self.layout:
                parameter.grad = None
        finite = torch.isfinite(loss)
        with torch.no_grad():
            for tensor, old in zip(state, before, strict=True):
                tensor.copy_(torch.where(finite, tensor, old))
        return [loss, *sparse_ones]


class _Untraceable(RuntimeError):
    """An optimiser's step cannot be written as a graph."""


def _held(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _plain(kept: dict) -> dict:
    """What an optimiser keeps besides tensors: a step that changes it cannot be a graph."""
    return {k: id(v) if isinstance(v, Tensor) else v for k, v in kept.items() if k != "params"}


def _step_counts_to(optimizer: Optimizer, device: torch.device) -> None:
    """Moves step counts to the parameters' device, where a graph can count."""
    if device.type == "cpu":
        return
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
            for parameter in group["params"]:
                state = optimizer.state.get(parameter, {})
                if isinstance(state.get("step"), Tensor):
                    state["step"] = state["step"].to(device)


@contextmanager
def _as_tensors(optimizers: Sequence[Optimizer], rates: Sequence[Tensor]) -> Iterator[None]:
    """Lets optimisers step by plain tensor operations, with rates that are tensors.

    Raises:
        _Untraceable: if a step reads a tensor's value, or counts in Python.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    kept = [*groups, *(state for optimizer in optimizers for state in optimizer.state.values())]
    before = [dict(each) for each in kept]
    for group in groups:
        group |= {k: k != "fused" for k in ("capturable", "fused", "foreach") if k in group}
    for group, rate in zip((g for g in groups if "lr" in g), rates, strict=True):
        group["lr"] = rate
    held = [set(optimizer.state) for optimizer in optimizers]
    during = [_plain(each) for each in kept]
    try:
        with tracing.compiling_state():
            yield
        same = [_plain(each) for each in kept] == during
        same = same and held == [set(optimizer.state) for optimizer in optimizers]
    except RuntimeError as error:
        raise _Untraceable(str(error)) from error
    finally:
        for optimizer, parameters in zip(optimizers, held, strict=True):
            for parameter in optimizer.state.keys() - parameters:
                del optimizer.state[parameter]
        for each, old in zip(kept, before, strict=True):
            each.clear()
            each.update(old)
    if not same:
        raise _Untraceable("an optimiser counts in Python")
