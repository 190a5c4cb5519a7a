"""The optimisers' step on given gradients, as Python runs it or as a graph."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor
from torch.optim import Optimizer

from bayesvae.compiler import tracing
from bayesvae.compiler.clipped_adam import clipped_adam_step, count_in_tensors
from bayesvae.compiler.patches import compiling_state
from bayesvae.compiler.tracing import Recorded

Clip = Callable[[list[Tensor]], None]
"""Changes the gradients of parameters in place before a step."""


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
        self._joined: list[Optimizer] = []  # part of the graph
        self._left: list[Optimizer] = []  # steps as it is
        self._groups: list[dict] = []
        self._rated: list[dict] = []
        self._decays = False
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
        if joined and not (self._left or self._decays):
            return
        loss, *gradients = outputs
        if not torch.isfinite(loss):
            if joined:
                self.undo()
            return
        left = self._left if joined else self.optimizers()
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
        self._join()
        if not self._joined:
            return None
        device = outputs[0].device
        numbers = [t.dtype for t in outputs if t.is_floating_point()]
        exact = {"device": device, "dtype": max(numbers, key=lambda d: torch.finfo(d).bits)}
        self._rates = [torch.tensor(float(g["lr"]), **exact) for g in self._rated]
        self._known_rates = [float(group["lr"]) for group in self._rated]
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

    def _join(self) -> None:
        """Decides which optimisers can be part of a graph: without hooks, not on rows."""
        made, tables = self.optimizers(), {id(table) for table in self.tables()}
        self._joined = [
            o
            for o in made
            if not any(id(p) in tables for p in _held(o))
            and not (o._optimizer_step_pre_hooks or o._optimizer_step_post_hooks)
        ]
        self._left = [o for o in made if o not in self._joined]
        # A graph hands out no gradients but those of rows.
        apart = any(id(p) not in tables for o in self._left for p in _held(o))
        if apart or (tables and self.clip):
            self._joined = []
        self._groups = [group for o in self._joined for group in o.param_groups]
        self._rated = [group for group in self._groups if "lr" in group]
        self._decays = any("lrd" in group for group in self._rated)

    def undo(self) -> None:
        """Takes back what `inputs` did to rates for a step that was not taken."""
        for group in self._rated:
            if "lrd" in group:
                group["lr"] /= group["lrd"]

    def inputs(self) -> list[Tensor]:
        """The learning rates of the next step, as tensors; asked for once a step."""
        for i, group in enumerate(self._rated):
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
                [v for k, v in group.items() if k not in ("params", "lr", "initial_lr")]
                for group in self._groups
            ),
            [(id(o.state), len(o.state), len(o.param_groups)) for o in self._joined],
        ]

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
        with compiling_state():
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
