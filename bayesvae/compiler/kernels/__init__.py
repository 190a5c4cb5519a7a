"""Single operations made fast: matrix products tried out, elementary functions rewritten.

`autotuning` tries every way to multiply two matrices, our own kernel in `gemm` among them, and
`elementary` writes log1p, expm1 and tanh in faster terms.  Only `bayesvae.compiler` uses them.
"""

from bayesvae.compiler.kernels import autotuning, elementary, gemm

__all__ = ["autotuning", "elementary", "gemm"]
