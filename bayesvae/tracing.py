"""Recording what a Python function does to tensors, and compiling the record.

A Pyro program spends most of its time in Python: handlers, traces, distributions.  None of that
depends on the values of tensors, so one run under ``make_fx`` leaves a graph of tensor operations
that does the same to any other tensors of these shapes, as JAX does it.

``torch.compile`` alone cannot read Pyro's handlers, ``torch.export`` hands back a graph without
gradients or optimiser, and ``torch.compiler.nonstrict_trace`` takes captured parameters for
constants.  So what the package needs from torch's and Pyro's less settled interfaces stands here,
and the rest of it sees `record`, `chained`, `compiled` and `decided`.
"""

import copy
import inspect
import linecache
import operator
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pyro
import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import (
    disable_proxy_modes_tracing,
    get_proxy_mode,
    make_fx,
)
from torch.fx.proxy import TracerBase
from torch.utils import _pytree as pytree

from bayesvae.elementary import compiler_pass
from bayesvae.items import item_free
from bayesvae.products import with_fastest_products

tree_flatten, tree_unflatten = pytree.tree_flatten, pytree.tree_unflatten

TensorFunction = Callable[..., Sequence[Tensor]]
"""A function of tensors that returns tensors."""


class Recorded(NamedTuple):
    """A function as a graph of tensor operations.

    Attributes:
        graph: takes the function's inputs, then the captured tensors; returns its outputs.
        captured: tensors that the function reads from elsewhere (parameters, buffers, data), by
            reference: the graph sees what they hold when it runs.
    """

    graph: GraphModule
    captured: tuple[Tensor, ...]

    @property
    def inputs(self) -> int:
        """How many tensors it takes besides the captured ones."""
        nodes = self.graph.graph.nodes
        return sum(node.op == "placeholder" for node in nodes) - len(self.captured)

    @property
    def outputs(self) -> int:
        """How many tensors it returns."""
        return len(next(iter(reversed(self.graph.graph.nodes))).args[0])

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        """Runs the graph as it stands, operation by operation, on inputs and captured tensors."""
        with torch.no_grad():
            return list(self.graph(*tensors))


def record(function: TensorFunction, inputs: Sequence[Tensor]) -> Recorded:
    """Runs a function once and writes down its tensor operations.

    Shapes, dtypes, devices and everything that Python decides are fixed by this run.  The stream
    of random numbers is left as it was; tensors that the function changes are changed.

    Args:
        function: of as many tensors as there are inputs.
        inputs: what to run it on.

    Returns:
        The record.

    Raises:
        RuntimeError: where Python asks for the value of a tensor, as in ``if z.sum() > 0``.
    """

    def flat(*given: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(*given))

    # Tensors of their own, so that one given twice, or captured as well, is told apart later.
    given = [t.detach().requires_grad_(t.requires_grad) for t in inputs]
    all_frames = mock.patch.object(TracerBase, "_filter_traceback_frames", lambda _, kept: kept)
    # Distributions made earlier still look at values; they are wanted unlooked at.
    unseen = mock.patch.object(torch.distributions.Distribution, "_validate_sample", _accept)
    with forked(inputs), pyro.validation_enabled(False), item_free(), all_frames, unseen:
        return _lifted(make_fx(flat, record_stack_traces=True)(*given))


def _accept(*_: Any) -> None:
    """Takes any value."""


def forked(tensors: Sequence[Tensor]) -> AbstractContextManager:
    """A context after which the streams of random numbers are where they were."""
    return torch.random.fork_rng(devices={t.device.index for t in tensors if t.is_cuda})


def decided(predicate: Callable[[], bool]) -> bool:
    """A Python decision about tensors' values that a record may rely on.

    While recording it is taken on the values of this run and fixed.  For decisions that belong to
    the program and not to its data, such as whether two masks agree.
    """
    if get_proxy_mode() is None:
        return predicate()
    with disable_proxy_modes_tracing():
        return predicate()


def changes(recorded: Recorded) -> Iterator[tuple[Tensor, str]]:
    """The captured tensors that a record changes, with the place in the program."""
    nodes = [n for n in recorded.graph.graph.nodes if n.op == "placeholder"]
    captured = dict(zip(nodes[recorded.inputs :], recorded.captured, strict=True))
    for node in recorded.graph.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or not schema.is_mutable:
            continue
        for argument, value in zip(schema.arguments, node.args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and isinstance(value, Node) and value in captured:
                yield captured[value], _named(_parsed(node.meta.get("stack_trace") or ""))


def chained(first: Recorded, second: Recorded) -> Recorded:
    """One record that runs ``second`` on the outputs of ``first`` and further inputs of its own.

    Args:
        first: its outputs are the first inputs of ``second``.
        second: takes these outputs, then any number of further tensors.

    Returns:
        Takes the inputs of ``first`` and the further ones of ``second``, returns the outputs of
        ``second``.
    """
    inputs, graph = first.inputs, Graph()

    def parts(called: Node, number: int) -> tuple[Node, ...]:
        return tuple(graph.call_function(operator.getitem, (called, i)) for i in range(number))

    further = second.inputs - first.outputs
    own = [graph.placeholder(f"input_{i}") for i in range(inputs + further)]
    tensors = {id(t): t for t in (*first.captured, *second.captured)}
    nodes = {key: graph.placeholder(f"captured_{i}") for i, key in enumerate(tensors)}
    seen = [nodes[id(t)] for t in first.captured]
    between = graph.call_module("first", (*own[:inputs], *seen))
    seen = [nodes[id(t)] for t in second.captured]
    handed = parts(between, first.outputs)
    end = graph.call_module("second", (*handed, *own[inputs:], *seen))
    graph.output(parts(end, second.outputs))
    root = nn.ModuleDict({"first": first.graph, "second": second.graph})
    return Recorded(GraphModule(root, graph), tuple(tensors.values()))


def compiled(recorded: Recorded, eager_random: bool = False) -> Callable[..., Sequence[Tensor]]:
    """The record as compiled code: ``(*inputs, *captured)`` to outputs; compiles when first run.

    On a CPU it draws the same random numbers as the program itself: torch's own generators are
    faster there than numbers made inside the loops.  On a CUDA device the numbers are made inside
    the kernels, and these are replayed as a CUDA graph where torch can.

    Args:
        recorded: the record.
        eager_random: draw the program's own random numbers on a CUDA device too; slower.
    """
    on_gpu = any(t.is_cuda for t in recorded.captured)
    options: dict[str, Any] = {
        "fallback_random": eager_random or not on_gpu,
        "post_grad_custom_pre_pass": compiler_pass(),
        "size_asserts": False,  # as its guards: the caller has looked at each tensor
    }
    if on_gpu:
        options["triton.cudagraphs"] = True
        for tensor in recorded.captured:
            torch._dynamo.mark_static_address(tensor)
    code: list[Callable[..., Sequence[Tensor]]] = []

    def run(*tensors: Tensor) -> Sequence[Tensor]:
        with torch.no_grad():
            if not code:
                # What torch.compile ends in, without its guards on each input at each call: the
                # caller knows when shapes and modes are the same.
                compiled = torch._inductor.standalone_compile(
                    _hastened(recorded.graph),
                    list(tensors),
                    dynamic_shapes="from_example_inputs",
                    options={"config_patches": options},
                )
                code.append(compiled)
            outputs = code[0](*tensors)
        # The next replay of a CUDA graph overwrites what this one returned.
        return [t.clone() for t in outputs] if on_gpu else outputs

    return run


def layout_guard(tensors: Sequence[Tensor]) -> Callable[..., bool]:
    """Whether given tensors are of the kinds, shapes and strides of these; a microsecond's work.

    Compiled code asserts nothing, and a tensor can be laid out anew where it lies (``w.t_()``).
    """
    guards = torch._C._dynamo.guards.TensorGuards(
        *tensors,
        dynamic_dims_sizes=[list(tensor.shape) for tensor in tensors],
        dynamic_dims_strides=[list(tensor.stride()) for tensor in tensors],
    )
    return guards.check


def missing_compiler() -> str | None:
    """What to install before code can be compiled for the CPU, None if it is all there."""
    candidates = ("clang++", "g++", "c++", "cl", "icpx")
    named = torch._inductor.config.cpp.cxx
    named = [name for name in (named if isinstance(named, (list, tuple)) else [named]) if name]
    if any(shutil.which(name) for name in (*named, *candidates)):
        return None
    return "there is no C++ compiler; install one (g++ or clang++) and put it on the PATH"


@contextmanager
def compiling_state() -> Iterator[None]:
    """Lets torch's optimisers keep step counts and rates as tensors, as under torch.compile."""
    with mock.patch.object(torch.compiler, "_is_compiling_flag", True):
        yield


# From make_fx's graph to a record ----------------------------------------------------------------


def _lifted(module: GraphModule) -> Recorded:
    """Turns tensors that a graph holds by reference into inputs of it."""
    graph, captured, nodes = module.graph, {}, {}
    last = next((n for n in reversed(graph.nodes) if n.op == "placeholder"), None)
    for node in list(graph.nodes):
        tensor = getattr(module, node.target) if node.op == "get_attr" else None
        if not isinstance(tensor, Tensor) or _is_literal(node):
            continue
        if id(tensor) not in captured:
            first = next(iter(graph.nodes))
            with graph.inserting_after(last) if last else graph.inserting_before(first):
                last = graph.placeholder(f"captured_{len(captured)}")
            last.meta["val"] = tensor.detach()
            captured[id(tensor)], nodes[id(tensor)] = tensor, last
        node.replace_all_uses_with(nodes[id(tensor)])
        graph.erase_node(node)
    for node in reversed(list(graph.nodes)):
        if getattr(node.target, "namespace", "") == "profiler":
            graph.erase_node(node)
    read = {node.target for node in graph.nodes if node.op == "get_attr"}
    for name in [name for name in vars(module) if name.startswith("_tensor_constant")]:
        if name not in read:
            delattr(module, name)
    for name in [name for name in (*module._parameters, *module._buffers) if name not in read]:
        delattr(module, name)
    module.recompile()
    return Recorded(module, tuple(captured.values()))


def _hastened(module: GraphModule) -> GraphModule:
    """A copy that computes the same, faster; the original rounds as the program does."""
    hastened = copy.deepcopy(module)
    for part in hastened.modules():
        if isinstance(part, GraphModule):
            with_fastest_products(part.graph)
            _compute_scalars_once(part.graph)
            part.recompile()
    return hastened


def _compute_scalars_once(graph: Graph) -> None:
    """Keeps powers of single numbers (an optimiser's bias corrections) out of the loops.

    Fused into a loop over a parameter they would be computed again for each few entries, at a
    hundred times the cost of all else.  The compiler stores what it is asked to look at by
    strides, so it is asked to.
    """
    for node in list(graph.nodes):
        value = node.meta.get("val")
        source = node.args[0] if node.target is operator.getitem else node
        if "pow" not in str(source.target) or not isinstance(value, Tensor) or value.dim():
            continue
        with graph.inserting_after(node):
            kept = graph.call_function(torch.ops.aten.as_strided.default, (node, [], []))
        kept.meta = dict(node.meta)
        node.replace_all_uses_with(kept, delete_user_cb=lambda user, kept=kept: user is not kept)


def _is_literal(node: Node) -> bool:
    """Whether a tensor was written in the program itself, as ``torch.tensor(0.5)``."""
    lifts = (torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default)
    return bool(node.users) and all(user.target in lifts for user in node.users)


# Where and why -----------------------------------------------------------------------------------


def place_of(error: BaseException) -> str:
    """File and line, with its text, of the user's code that an error passed through last.

    Empty where it passed through none.
    """
    return _named(traceback.extract_tb(error.__traceback__))


def frames_of_the_package() -> int:
    """The ``stacklevel`` at which a warning points to the code that called the package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level


def first_difference(first: Recorded, second: Recorded) -> str:
    """Where two records of one function part: a number, a shape or an operation; empty if not."""
    pairs = zip(first.graph.graph.nodes, second.graph.graph.nodes, strict=False)
    for one, other in pairs:
        if one.target != other.target and one.op == "call_function":
            deeper = max(one, other, key=lambda node: len(node.meta.get("stack_trace") or ""))
            return _told(deeper, f"{one.target} against {other.target}")
        mine, theirs = (
            [a for a in (*n.args, *n.kwargs.values()) if not _holds_node(a)] for n in (one, other)
        )
        if mine != theirs:
            return _told(one, f"{mine} against {theirs}")
        if one.op == "get_attr" and not _same_constant(first, second, one, other):
            return _told(one, "a tensor made anew")
    return ""


def _holds_node(argument: Any) -> bool:
    return isinstance(argument, Node) or (
        isinstance(argument, (list, tuple)) and any(map(_holds_node, argument))
    )


def _same_constant(first: Recorded, second: Recorded, one: Node, other: Node) -> bool:
    a, b = getattr(first.graph, one.target), getattr(second.graph, other.target)
    return not isinstance(a, Tensor) or (a.shape == b.shape and torch.equal(a, b))


def _told(node: Node, what: str) -> str:
    place = node.meta.get("stack_trace") or next(
        (user.meta["stack_trace"] for user in node.users if user.meta.get("stack_trace")), ""
    )
    line = _named(_parsed(place))
    return f"{what} at {line}" if line else what


def _parsed(stack: str) -> list[traceback.FrameSummary]:
    """The frames of a stack as text."""
    frames = []
    for line in stack.splitlines():
        parts = line.strip().split(", ")
        if len(parts) >= 3 and parts[0].startswith('File "'):
            file, number = parts[0][6:-1], int(parts[1].removeprefix("line "))
            frames.append(traceback.FrameSummary(file, number, parts[2].removeprefix("in ")))
    return frames


_PACKAGE = str(Path(__file__).parent)
_PYRO = str(Path(pyro.__file__).parent)
_LIBRARIES = (
    *(str(Path(inspect.getfile(module)).parent) for module in (torch, pyro, inspect)),
    _PACKAGE,
)


def _named(frames: Sequence[traceback.FrameSummary]) -> str:
    """The last frame outside of the libraries and of generated code, else Pyro's last."""
    users = [f for f in frames if not f.filename.startswith((*_LIBRARIES, "<"))]
    users = users or [f for f in frames if f.filename.startswith(_PYRO)]
    if not users:
        return ""
    frame = users[-1]
    text = (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()
    return f"{frame.filename}:{frame.lineno}: {text}"
