"""Recording what a Python function does to tensors.

A Pyro program spends most of its time in Python: handlers, traces, distributions.  None of that
depends on the values of tensors, so one run under ``make_fx`` leaves a graph of tensor operations
that does the same to any other tensors of these shapes, as JAX does it.

``torch.compile`` alone cannot read Pyro's handlers, ``torch.export`` hands back a graph without
gradients or optimiser, and ``torch.compiler.nonstrict_trace`` takes captured parameters for
constants.
"""

import operator
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import (
    disable_proxy_modes_tracing,
    get_proxy_mode,
    make_fx,
)

from bayesvae.compiler.patches import recordable

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
    with forked(inputs), recordable():
        return _lifted(make_fx(flat, record_stack_traces=True)(*given))


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


def _is_literal(node: Node) -> bool:
    """Whether a tensor was written in the program itself, as ``torch.tensor(0.5)``."""
    lifts = (torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default)
    return bool(node.users) and all(user.target in lifts for user in node.users)
