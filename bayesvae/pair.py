"""A pair: a generative program p(x, z), a guide q(z | x), and the parameters of both.

Nothing has to be inherited.  Programs are Pyro stochastic functions of ``(x, index)`` or of ``x``
alone.  Their parameters may live in modules (given as programs, or behind bound methods, partials
and closures) or in ``pyro.module`` and ``pyro.param`` statements, which only a run brings to
light. All of them end up as parameters of one ``nn.Module``, so that any torch optimiser,
``state_dict`` and ``.to(device)`` see them.

Pyro keys parameters by name in one global store, where a second pair with equal names would
silently share them.  Here every ``nn.Parameter`` is used as the object that it is; the store is
asked for plain ``pyro.param`` tensors only.
"""

import inspect
import weakref
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import transform_to

from bayesvae.programs import Program

_number = count()


def _takes_index(program: Program) -> bool:
    call = program.forward if isinstance(program, nn.Module) else program
    kinds = inspect.signature(call).parameters
    return "index" in kinds or any(kind.kind is kind.VAR_KEYWORD for kind in kinds.values())


def _modules_behind(program: Program) -> Iterator[nn.Module]:
    """Modules reachable from a program without running it."""
    if isinstance(program, nn.Module):
        yield program
    elif isinstance(program, partial):
        for part in (program.func, *program.args, *program.keywords.values()):
            yield from _modules_behind(part)
    elif inspect.ismethod(program):
        yield from _modules_behind(program.__self__)
    elif inspect.isfunction(program):
        for value in inspect.getclosurevars(program).nonlocals.values():
            yield from _modules_behind(value)


class _OwnParameters(Messenger):
    """Serves a pair's own parameters at ``pyro.param`` and ``pyro.module`` statements.

    Args:
        owned: parameters that stand for plain ``pyro.param`` statements, unconstrained, by name.
    """

    def __init__(self, owned: dict[str, nn.Parameter]) -> None:
        super().__init__()
        self.owned = owned
        self.seen: dict[str, Tensor] = {}

    def _pyro_param(self, msg: dict) -> None:
        initial = msg["args"][1] if len(msg["args"]) > 1 else None
        if isinstance(initial, nn.Parameter):
            parameter = value = initial
        elif msg["name"] in self.owned:
            parameter = self.owned[msg["name"]]
            value = transform_to(msg["kwargs"]["constraint"])(parameter)
        else:
            return
        value.unconstrained = weakref.ref(parameter)
        msg["value"], msg["done"] = value, True

    def _pyro_post_param(self, msg: dict) -> None:
        self.seen[msg["name"]] = msg["value"].unconstrained()


class Pair(nn.Module):
    """A Pyro model and its guide, with the parameters of both.

    ``pair.model`` and ``pair.guide`` are again Pyro programs of ``(x, index=None)`` and can be
    given to ``pyro.infer.SVI`` as they are.

    Args:
        model: stochastic function of ``(x, index)`` or ``x``; ``x`` is ``(B, *event)``, ``index``
            ``(B,)`` the rows' positions in the data set. Opens ``pyro.plate("data", ...)`` at
            dim -1 around what belongs to one datum.
        guide: the same for the latents alone.

    Raises:
        TypeError: if one of them cannot be called.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> class Toy(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.loc = torch.nn.Parameter(torch.zeros(()))
        ...     def model(self, x):
        ...         with pyro.plate("data", len(x)):
        ...             z = pyro.sample("z", dist.Normal(self.loc, 1.0))
        ...             pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        ...     def guide(self, x):
        ...         with pyro.plate("data", len(x)):
        ...             pyro.sample("z", dist.Normal(x / 2, 0.7))
        >>> toy = Toy()
        >>> [name for name, _ in Pair(toy.model, toy.guide).named_parameters()]
        ['model_part_0.loc']
    """

    def __init__(self, model: Program, guide: Program) -> None:
        super().__init__()
        for role, program in (("model", model), ("guide", guide)):
            if not callable(program):
                raise TypeError(
                    f"Pair needs a callable {role}; got {type(program).__name__}. Pass a Pyro "
                    "stochastic function such as `vae.model`."
                )
            for module in _modules_behind(program):
                if all(module is not known for known in self.children()):
                    self.add_module(f"{role}_part_{len(self._modules)}", module)
        self._programs = {"model": model, "guide": guide}
        self._takes_index = {role: _takes_index(p) for role, p in self._programs.items()}
        self._statements = nn.ParameterDict()
        self._keys: dict[str, str] = {}
        self._name = f"pair_{next(_number)}"

    def model(self, x: Tensor, index: Tensor | None = None) -> Any:
        """Runs the generative program on a batch; see the class for shapes."""
        return self._run("model", self._own(), x, index)

    def guide(self, x: Tensor, index: Tensor | None = None) -> Any:
        """Runs the guide on a batch, and shows Pyro every parameter of the pair."""
        own = self._own()
        with own:
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    pyro.param(f"{self._name}.{name}", parameter)
        return self._run("guide", own, x, index)

    def find_parameters(self, x: Tensor, index: Tensor | None = None) -> None:
        """Takes in the parameters that only ``pyro.module`` and ``pyro.param`` statements show.

        Runs both programs once on a batch without touching the random stream.  `fit` and the
        evaluators call it; call it yourself before you build an optimiser or load a state by hand.

        Args:
            x: a batch ``(B, *event)``.
            index: its positions ``(B,)``, for programs that need them.
        """
        own = self._own()
        with torch.no_grad(), torch.random.fork_rng(), pyro.validation_enabled(False):
            self._run("guide", own, x, index)
            self._run("model", own, x, index)
        known = {id(parameter) for parameter in self.parameters()}
        for name, unconstrained in own.seen.items():
            if id(unconstrained) not in known:
                self._take_in(name, unconstrained)

    def _own(self) -> _OwnParameters:
        return _OwnParameters({name: self._statements[key] for name, key in self._keys.items()})

    def _run(self, role: str, own: _OwnParameters, x: Tensor, index: Tensor | None) -> Any:
        named = {"index": index} if self._takes_index[role] else {}
        with own:
            return self._programs[role](x, **named)

    def _take_in(self, name: str, unconstrained: Tensor) -> None:
        key = name.replace(".", "_")
        if isinstance(unconstrained, nn.Parameter):
            self._statements[key] = unconstrained
        else:
            # The same storage as Pyro's store, so that pyro.param shows what training does.
            self._statements[key] = nn.Parameter(unconstrained.data)
            self._keys[name] = key
