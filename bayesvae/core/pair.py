"""A pair: a generative program p(x, z), a guide q(z | x), and the parameters of both.

Nothing has to be inherited.  Programs are Pyro stochastic functions of ``(x, index)`` or of ``x``
alone.  Their parameters may live in modules (given as programs, or behind bound methods, partials
and closures) or in ``pyro.module`` and ``pyro.param`` statements, which only a run brings to
light. All of them end up as parameters of one ``nn.Module``, so that any torch optimiser,
``state_dict`` and ``.to(device)`` see them.

Pyro keys parameters by name in one global store, where a second pair with equal names would
silently share them.  Here a module's parameter is used as the object that it is; the store is
asked for plain ``pyro.param`` statements only, which Pyro means to be one parameter a name.
"""

import copy
import inspect
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from pyro.params.param_store import _MODULE_NAMESPACE_DIVIDER
from pyro.poutine.messenger import Messenger, unwrap
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn
from torch.distributions import transform_to

from bayesvae.compiler import one_thread, unvalidated
from bayesvae.core.programs import Program

_number = count()
_names: weakref.WeakKeyDictionary["Pair", str] = weakref.WeakKeyDictionary()


def _takes_index(program: Program) -> bool | None:
    """Whether a program takes ``index``; None if it hands on whatever it is given."""
    program = unwrap(program)
    call = program.forward if isinstance(program, nn.Module) else program
    parameters = inspect.signature(call).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    if "index" in parameters:
        return True
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return None
    return inspect.Parameter.VAR_KEYWORD in kinds


def _filled(cells: tuple) -> Iterator[Any]:
    for cell in cells:
        try:
            yield cell.cell_contents
        except ValueError:  # a name that is bound later
            continue


def _modules_behind(program: Any, seen: set[int]) -> Iterator[nn.Module]:
    """Modules reachable from a program without running it."""
    if id(program) in seen:
        return
    seen.add(id(program))
    if isinstance(program, nn.Module):
        yield program
        return
    for part in _parts(program):
        yield from _modules_behind(part, seen)


def modules_behind(*programs: Any) -> list[nn.Module]:
    """Every module reachable from programs without running them: behind methods, closures, ..."""
    seen: set[int] = set()
    return [module for program in programs for module in _modules_behind(program, seen)]


def _parts(program: Any) -> Iterable[Any]:
    """What a program, or something that one holds, is made of."""
    if isinstance(program, dict):
        return program.values()
    if isinstance(program, (list, tuple, set)):
        return program
    if isinstance(program, partial):
        return (program.func, *program.args, *program.keywords.values())
    if inspect.ismethod(program):
        return (program.__self__, program.__func__)
    if inspect.isfunction(program):
        named = (program.__globals__.get(name) for name in program.__code__.co_names)
        modules = (value for value in named if isinstance(value, nn.Module))
        return (*_filled(program.__closure__ or ()), *vars(program).values(), *modules)
    if inspect.isclass(program) or inspect.ismodule(program) or isinstance(program, Tensor):
        return ()
    call = type(program).__call__ if callable(program) else None
    return (*getattr(program, "__dict__", {}).values(), call)


def _is_watched() -> bool:
    """Whether someone collects parameters, as ``pyro.infer.SVI`` does at every step."""
    return any(isinstance(each, TraceMessenger) and each.param_only for each in _PYRO_STACK)


def _claim(module: PyroModule) -> None:
    """Makes Pyro's store hold this module's parameters under their names.

    Otherwise a PyroModule reads a parameter's name from the store and takes what it finds there,
    the parameter of an earlier module of that name, for its own.
    """
    store = pyro.get_param_store()
    with module._pyro_context:
        for local, (constraint, _) in module._pyro_params.items():
            name = module._pyro_get_fullname(local)
            parameter = module._parameters[f"{local}_unconstrained"]
            store._constraints[name], store._params[name] = constraint, parameter
            store._param_to_name[parameter] = name


class _OwnParameters(Messenger):
    """Serves a pair's own parameters at ``pyro.param`` and ``pyro.module`` statements.

    Args:
        owned: parameters that stand for plain ``pyro.param`` statements, unconstrained, by name.
        known: ids of the parameters of the pair's modules.
    """

    def __init__(self, owned: dict[str, nn.Parameter], known: frozenset[int]) -> None:
        super().__init__()
        self.owned, self.known = owned, known
        self.seen: list[tuple[str, Tensor]] = []

    def _pyro_param(self, msg: dict) -> None:
        name, initial = msg["name"], msg["args"][1] if len(msg["args"]) > 1 else None
        of_module = _MODULE_NAMESPACE_DIVIDER in name or id(initial) in self.known
        if of_module and isinstance(initial, nn.Parameter):
            parameter = value = initial
        elif name in self.owned:
            parameter = self.owned[name]
            value = transform_to(msg["kwargs"]["constraint"])(parameter)
        else:
            return
        value.unconstrained = weakref.ref(parameter)
        msg["value"], msg["done"] = value, True

    def _pyro_post_param(self, msg: dict) -> None:
        self.seen.append((msg["name"], msg["value"].unconstrained()))


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
            for module in _modules_behind(program, set()):
                if all(module is not known for known in self.children()):
                    self.add_module(f"{role}_part_{len(self._modules)}", module)
        self._programs = {"model": model, "guide": guide}
        takes = {role: _takes_index(program) for role, program in self._programs.items()}
        handed_on = any(takes.values())
        self._takes_index = {r: handed_on if t is None else t for r, t in takes.items()}
        self._pyro_modules = [m for m in self.modules() if isinstance(m, PyroModule)]
        self._statements = nn.ParameterDict()
        self._keys: dict[str, str] = {}

    def model(self, x: Tensor, index: Tensor | None = None) -> Any:
        """Runs the generative program on a batch; see the class for shapes."""
        return self._run("model", self._own(), x, index)

    def guide(self, x: Tensor, index: Tensor | None = None) -> Any:
        """Runs the guide on a batch; under Pyro's SVI also shows it the pair's parameters."""
        if _is_watched():
            self._show_parameters()
        return self._run("guide", self._own(), x, index)

    def find_parameters(self, x: Tensor, index: Tensor | None = None) -> None:
        """Takes in the parameters that only ``pyro.module`` and ``pyro.param`` statements show.

        Runs both programs on a batch without touching the random stream.  `fit` and the
        evaluators call it; call it yourself before you build an optimiser or load a state by hand.

        Args:
            x: a batch ``(B, *event)``.
            index: its positions ``(B,)``, for programs that need them.
        """
        with (
            one_thread,
            torch.no_grad(),
            torch.random.fork_rng(),
            unvalidated,
            evaluation_mode(self),
        ):
            for _ in range(2):  # automatic guides make their parameters in the first run
                own = self._own()
                self._run("guide", own, x, index)
                self._run("model", own, x, index)
                self._pyro_modules = [m for m in self.modules() if isinstance(m, PyroModule)]
        for name, unconstrained in own.seen:
            if all(unconstrained is not known for known in self.parameters()):
                self._take_in(name, unconstrained)

    def __deepcopy__(self, memo: dict) -> "Pair":
        """A copy with parameters of its own.

        Raises:
            TypeError: if a program is a function with modules behind it, which Python copies as
                the same function.
        """
        for role, program in self._programs.items():
            if inspect.isfunction(program) and any(_modules_behind(program, set())):
                raise TypeError(
                    f"A Pair whose {role} is a plain function around modules cannot be copied: "
                    "the copy would run the original's. Build a second pair and load the state."
                )
        memo[id(self)] = new = type(self).__new__(type(self))
        new.__dict__.update({k: copy.deepcopy(v, memo) for k, v in self.__dict__.items()})
        return new

    def _own(self) -> _OwnParameters:
        owned = {name: self._statements[key] for name, key in self._keys.items()}
        known = (id(p) for module in self._pyro_modules for p in module.parameters(recurse=False))
        return _OwnParameters(owned, frozenset(known))

    def _run(self, role: str, own: _OwnParameters, x: Tensor, index: Tensor | None) -> Any:
        named = {"index": index} if self._takes_index[role] else {}
        for module in self._pyro_modules:
            _claim(module)
        with own:
            return self._programs[role](x, **named)

    def _take_in(self, name: str, unconstrained: Tensor) -> None:
        if _MODULE_NAMESPACE_DIVIDER not in name and name in self._keys:
            return
        key = "param_" + name.replace(".", "_")
        while key in self._statements:
            key += "_"
        if isinstance(unconstrained, nn.Parameter):
            self._statements[key] = unconstrained
        else:
            # The same storage as Pyro's store, so that pyro.param shows what training does.
            self._statements[key] = nn.Parameter(unconstrained.data)
        if _MODULE_NAMESPACE_DIVIDER not in name:
            self._keys[name] = key

    def _show_parameters(self) -> None:
        """States every parameter by a name of this pair alone, at which the store holds it."""
        prefix = _names.setdefault(self, f"pair_{next(_number)}")
        for local, parameter in self.named_parameters():
            name = f"{prefix}{_MODULE_NAMESPACE_DIVIDER}{local}"
            if parameter.requires_grad:
                pyro.param(name, parameter)


@contextmanager
def evaluation_mode(pair: Pair) -> Iterator[None]:
    """Puts the pair's modules in evaluation mode, and each back in its own afterwards."""
    modes = {module: module.training for module in pair.modules()}
    pair.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def require_pair(pair: Any) -> None:
    """Refuses anything but a pair.

    Raises:
        TypeError: with what was given instead.
    """
    if not isinstance(pair, Pair):
        raise TypeError(
            f"A Pair is needed; got {type(pair).__name__}. Pass Pair(model, guide), or what "
            "pairs.vae(...) returns."
        )


def on_device_of(pair: Pair, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The tensors where the pair's parameters are."""
    first = next(pair.parameters(), None)
    if first is None:
        return tensors
    return tuple(None if t is None else t.to(first.device, non_blocking=True) for t in tensors)
