"""One optimisation step: a loss and its gradients, then the optimisers, compiled together.

Any torch optimiser whose step is made of tensor operations joins the graph, its rates and step
counts as tensors; others (sparse ones, those that count in Python) run as they are after a
compiled gradient.  A step whose loss is not finite moves nothing.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from bayesvae.compiler.compiled_function import Compiled, When
from bayesvae.compiler.optimizer_step import Clip, Update
from bayesvae.compiler.patches import one_thread


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
        when: "auto", True or False, as in `bayesvae.compiler.Compiled`.
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
        outputs, tailed = self.compiled.call(args, kwargs)
        if tailed:
            self.update.finish(outputs, tailed)
            return outputs[0]
        with one_thread:  # an optimiser asks torch whether it is being compiled
            start = time.perf_counter()
            self.update.finish(outputs, tailed)
        self.compiled.add(time.perf_counter() - start)
        return outputs[0]

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
            flat = [leaf for each in leaves for leaf in each if leaf.requires_grad]
            given = torch.autograd.grad(loss, flat, materialize_grads=True)
            of_leaf = dict(zip(map(id, flat), given, strict=True))
        outputs = [loss.detach()]
        for (parameter, sparse), each in zip(self.update.layout, leaves, strict=True):
            # A frozen parameter that Pyro trained before gets a gradient of zeros from it.
            found = [of_leaf.get(id(leaf), torch.zeros_like(leaf)) for leaf in each]
            if sparse:
                outputs.append(torch.cat([index.flatten() for index in rows.indices(parameter)]))
                found = [torch.cat([g.flatten(0, -2) for g in found])]
            outputs += found
        return outputs


_EMBEDDING = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq")


class _LookedUp(TorchFunctionMode):
    """Makes the rows that a table is asked for leaves of the gradient, instead of the table."""

    def __init__(self, tables: Sequence[Tensor]) -> None:
        super().__init__()
        self._tables = {id(table): [] for table in tables}

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if function is embedding and id(args[1]) in self._tables:
            named = dict(zip(_EMBEDDING, args, strict=False)) | (kwargs or {})
            if named.get("max_norm") is not None or named.get("scale_grad_by_freq"):
                raise RuntimeError("a sparse table with max_norm or scale_grad_by_freq")
            index, table = args[:2]
            rows = table.detach()[index].requires_grad_()
            self._tables[id(table)].append((index, rows))
            padding = named.get("padding_idx")
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
