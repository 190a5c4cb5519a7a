"""Stochastic variational inference at compiled speed, by the interface of ``pyro.infer.SVI``."""

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from pyro import optim as pyro_optim
from pyro import poutine
from pyro.infer import ELBO
from pyro.infer.util import torch_item
from pyro.optim import PyroOptim
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from bayesvae.compiler import Compiled, Step, When
from bayesvae.core.pair import modules_behind
from bayesvae.core.precision import in_precision
from bayesvae.core.programs import Program
from bayesvae.objectives import refuse_jit

OptimizerFactory = Callable[[Iterable[Tensor]], Optimizer]


class CompiledSVI:
    """``pyro.infer.SVI`` at compiled speed: change the name, leave the script.

    As written it takes the same steps as ``pyro.infer.SVI`` and returns the same losses from the
    same seed, on the same scale: nats, summed over the data that the plates stand for.  As soon as
    compiling pays, loss, gradient and optimiser become one graph, compiled, with fresh random
    numbers at every step: on a CPU the program's own, so that losses stay the same up to rounding,
    on a GPU others of the same distribution.  A pair that cannot be traced stays as it is, after
    one warning that says why.

    Not for programs that change by Python means from step to step, such as a counter in a guide:
    pass what changes as an argument (a float or a tensor).

    Args:
        model: any Pyro program.
        guide: its guide.
        optim: a Pyro optimiser, a torch optimiser, or a function that makes a torch optimiser from
            the parameters that the first step finds.
        loss: a Pyro ``ELBO``, or ``(model, guide, *args) -> Tensor ()``.
        compile: "auto" once past steps show that it will pay, True at once (an error if it cannot
            be done), False never.
        networks: ``torch.bfloat16`` to run the products of layers in half precision; densities,
            sums and the optimiser stay in float32.
        eager_random: draw the program's own random numbers on a GPU too; slower.

    Raises:
        TypeError: for optimisers and losses of other kinds.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     w = pyro.sample("w", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(w, 1.0), obs=x)
        >>> guide = pyro.infer.autoguide.AutoNormal(model)
        >>> optim = pyro.optim.Adam({"lr": 0.01})
        >>> svi = CompiledSVI(model, guide, optim, pyro.infer.Trace_ELBO())
        >>> isinstance(svi.step(torch.zeros(5)), float)
        True
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        optim: PyroOptim | Optimizer | OptimizerFactory,
        loss: ELBO | Callable[..., Tensor],
        compile: When = "auto",
        *,
        networks: torch.dtype | None = None,
        eager_random: bool = False,
    ) -> None:
        _require(optim, loss)
        self.model, self.guide, self.optim = model, guide, optim
        self.loss, self.loss_and_grads = _losses(loss, by_statements=isinstance(optim, PyroOptim))
        settings = {"compile": compile, "networks": networks, "eager_random": eager_random}
        self._settings = {"model": model, "guide": guide, "loss": loss} | settings
        self._told: Any = None
        self._moved: dict[int, Tensor] = {}
        modules = modules_behind(model, guide)
        self._parameters = [p for module in modules for p in module.parameters()]
        self._step = Step(
            in_precision(_differentiable(loss, model, guide), networks),
            [],
            [optim] if isinstance(optim, Optimizer) else self._optimizers,
            modules,
            clip=self._clip,
            take=self._take,
            eager=in_precision(self._with_gradients, networks),
            when=compile,
            eager_random=eager_random,
            name="CompiledSVI.step",
        )
        self._value = Compiled(
            in_precision(self._loss_alone, networks),
            modules,
            when=compile,
            eager_random=eager_random,
            name="CompiledSVI.evaluate_loss",
        )

    def step(self, *args: Any, **kwargs: Any) -> float:
        """Takes a gradient step on the loss; arguments go to model and guide.

        Returns:
            The loss before the step, nats, as ``pyro.infer.SVI`` gives it.  A step whose loss is
            not finite moves nothing and warns.
        """
        self._told = None
        loss = self.update(*args, **kwargs)
        told = loss.item() if self._told is None else self._told
        if isinstance(told, float) and not math.isfinite(told):
            warnings.warn(f"A loss of {told}: this step moved nothing.", UserWarning, stacklevel=2)
        return told

    def update(self, *args: Any, **kwargs: Any) -> Tensor:
        """Takes a step and returns its loss as a tensor ``()``, which does not wait for a GPU.

        Raises:
            RuntimeError: where gradients are switched off.
        """
        if not torch.is_grad_enabled():
            raise RuntimeError(
                "CompiledSVI takes steps by gradients, which are switched off here by "
                "torch.no_grad or inference_mode. Step outside of them."
            )
        return self._step(*args, **kwargs)

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:
        """An estimate of the loss, nats, without a step."""
        told = tuple(part.item() for part in self._value(*args, **kwargs))
        return told if len(told) > 1 else told[0]

    @property
    def is_compiled(self) -> bool:
        """Whether steps run compiled by now."""
        return self._step.compiled.is_compiled

    @property
    def reason(self) -> str:
        """Why steps are not compiled, in words; empty unless something prevented it."""
        return self._step.compiled.reason

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of: it compiles anew, for its own tensors."""
        return self._settings | {"optim": self.optim, "moved": list(self._moved.values())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        settings = dict(state)
        moved = settings.pop("moved")
        self.__init__(**settings)
        self._moved = {id(parameter): parameter for parameter in moved}

    # As written --------------------------------------------------------------------------------

    def _with_gradients(self, *args: Any, **kwargs: Any) -> Tensor:
        """Loss and gradients as ``pyro.infer.SVI`` takes them."""
        with poutine.trace(param_only=True) as capture:
            loss = self.loss_and_grads(self.model, self.guide, *args, **kwargs)
        sites = capture.trace.nodes.values()
        seen = [site["value"].unconstrained() for site in sites]
        self._step.update.parameters = self._to_train(seen)
        self._told = type(loss)(map(torch_item, loss)) if isinstance(loss, tuple) else None
        first = loss[0] if isinstance(loss, tuple) else loss
        self._told = torch_item(first) if self._told is None else self._told
        return _tensor(first).detach()

    def _to_train(self, seen: list[Tensor]) -> list[Tensor]:
        """What the optimiser is to move, of what statements showed and modules hold."""
        if callable(self.optim) and not isinstance(self.optim, (PyroOptim, Optimizer)):
            known = {id(p): p for p in (*seen, *self._parameters) if p.grad is not None}
            self.optim = self.optim(list(known.values()))
            _require(self.optim, self.loss)
        if isinstance(self.optim, PyroOptim):
            trained = list({id(p): p for p in seen}.values())
            for parameter in trained:  # where a step gives no gradient Pyro leaves zeros
                if parameter.grad is None and id(parameter) in self._moved:
                    parameter.grad = torch.zeros_like(parameter)
            self._moved |= {id(p): p for p in trained if p.grad is not None}
        else:
            trained = [p for group in self.optim.param_groups for p in group["params"]]
        kept = {id(p) for p in trained}
        for parameter in (*seen, *self._parameters):
            if id(parameter) not in kept:
                parameter.grad = None
        if not any(p.grad is not None for p in trained):
            raise ValueError(
                "CompiledSVI found no parameter with a gradient, so nothing would train. State "
                "parameters with pyro.param or pyro.module, or pass Pair(model, guide).model and "
                ".guide, or a torch optimiser that holds them."
            )
        return trained

    def _loss_alone(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        with torch.no_grad():
            loss = self.loss(self.model, self.guide, *args, **kwargs)
        parts = loss if isinstance(loss, tuple) else (loss,)
        return [_tensor(part) for part in parts]

    # Pyro's optimisers as torch's --------------------------------------------------------------

    def _optimizers(self) -> list[Optimizer]:
        if isinstance(self.optim, PyroOptim):
            made = [self.optim.optim_objs.get(p) for p in self._step.update.parameters]
            return [getattr(each, "optimizer", each) for each in made if each is not None]
        return [self.optim]

    def _clip(self, parameters: list[Tensor]) -> None:
        """Clips each parameter by itself, as Pyro's wrappers do."""
        if isinstance(self.optim, PyroOptim):
            for parameter in parameters:
                clip = self.optim.grad_clip.get(parameter)
                if clip is not None:
                    clip(parameter)

    def _take(self, parameters: list[Tensor]) -> None:
        if isinstance(self.optim, PyroOptim):
            self.optim(parameters)
        else:
            self.optim.step()


def _tensor(value: float | Tensor) -> Tensor:
    """The value, a number in full precision."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def _require(optim: Any, loss: Any) -> None:
    made = isinstance(optim, (PyroOptim, Optimizer)) and not isinstance(optim, LBFGS)
    of_pyro = any(optim is each for each in vars(pyro_optim).values())
    makes = callable(optim) and not hasattr(optim, "step") and not of_pyro
    if not made and not makes:
        raise TypeError(
            "CompiledSVI takes a pyro.optim optimiser, a torch optimiser that steps from "
            "gradients alone, or a function that makes one from parameters; got "
            f"{type(optim).__name__}. "
            'Use for example pyro.optim.Adam({"lr": 1e-3}).'
        )
    if isinstance(loss, ELBO):
        refuse_jit(loss)
    elif not callable(loss) or isinstance(loss, type):
        raise TypeError(
            "CompiledSVI takes a Pyro ELBO or a function (model, guide, *args) -> Tensor (); got "
            f"{getattr(loss, '__name__', type(loss).__name__)}. Use for example Trace_ELBO()."
        )


def _losses(
    loss: ELBO | Callable[..., Tensor], by_statements: bool = True
) -> tuple[Callable, Callable]:
    """The loss alone and the loss that leaves gradients behind."""
    if isinstance(loss, ELBO) and (by_statements or not hasattr(loss, "differentiable_loss")):
        return loss.loss, loss.loss_and_grads
    value_of = loss.differentiable_loss if isinstance(loss, ELBO) else loss
    alone = loss.loss if isinstance(loss, ELBO) else loss

    def loss_and_grads(*args: Any, **kwargs: Any) -> Tensor:
        value = value_of(*args, **kwargs)
        if value.requires_grad:
            value.backward()
        return value

    return alone, loss_and_grads


def _differentiable(
    loss: ELBO | Callable[..., Tensor], model: Program, guide: Program
) -> Callable[..., Tensor]:
    """The loss as a tensor whose gradient is the estimator's, for a trace."""
    if isinstance(loss, ELBO) and not hasattr(loss, "differentiable_loss"):

        def refuse(*_: Any, **__: Any) -> Tensor:
            raise RuntimeError(f"{type(loss).__name__} has no differentiable_loss")

        return refuse
    function = loss.differentiable_loss if isinstance(loss, ELBO) else loss

    def differentiable(*args: Any, **kwargs: Any) -> Tensor:
        return function(model, guide, *args, **kwargs)

    return differentiable
