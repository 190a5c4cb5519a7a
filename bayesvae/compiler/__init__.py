"""From a Python function of tensors to compiled code that gives the same numbers.

Nothing here knows a model or a guide: a function runs as written, is recorded, is compared with
its record, and is compiled (`Compiled`); with the optimiser behind it that is a training step
(`Step`). What is private to torch, and every change of a global of torch's or Pyro's, stands in
this folder alone.  It imports nothing of the package; `core` and all above it may use it.

Begin with `compiled_function`, then `tracing`; `captured_tensors` and `compiled_shapes` hold what
is known between calls, `training_step` and `optimizer_step` what training adds, `kernels` what
makes single operations fast.
"""

from bayesvae.compiler.allocation import AllocatedBytes
from bayesvae.compiler.compiled_function import Compiled, CompileError, When
from bayesvae.compiler.optimizer_step import Clip
from bayesvae.compiler.patches import argument_checks_kept, one_thread, unvalidated
from bayesvae.compiler.program_lines import frames_of_the_package
from bayesvae.compiler.tracing import decided
from bayesvae.compiler.training_step import Step

__all__ = [
    "AllocatedBytes",
    "Clip",
    "CompileError",
    "Compiled",
    "Step",
    "When",
    "argument_checks_kept",
    "decided",
    "frames_of_the_package",
    "one_thread",
    "unvalidated",
]
