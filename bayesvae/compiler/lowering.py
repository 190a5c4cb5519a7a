"""From a record to compiled code, and what must be known before such code may be called."""

import copy
import operator
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule

from bayesvae.compiler.kernels.autotuning import with_fastest_products
from bayesvae.compiler.kernels.elementary import compiler_pass
from bayesvae.compiler.tracing import Recorded


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
