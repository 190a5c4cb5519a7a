"""Matrix products in a kernel of our own: small and narrow ones at the processor's speed.

    C = A B + 1 c',      A (m, k), B (k, n), c (n) or nothing, all of float32,
    or the positive part of it, which is what a layer of a network hands on,

is cut into tiles of R rows and S vectors of W columns, whose R S sums stay in registers while k
runs: each step of k loads S vectors of B, spreads R numbers of A, and multiplies R S times.  That
is what keeps a processor's multipliers busy ("Anatomy of High-Performance Matrix Multiplication",
Goto and van de Geijn, 2008); without its further levels, which serve matrices beyond the cache.
What libraries lose on small matrices is time spent on deciding, packing and on tiles that a narrow
side leaves half empty.  Columns of B are packed only where they are not contiguous or do not fill
a vector; A is read in any layout.

The source is built once a machine by the C++ compiler that compiled steps need anyway.  Everything
that is private to torch's compiler stands in `product` and `_built`.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

SOURCE = r"""
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int64_t W = 16, R = 8;
#elif defined(__AVX2__)
constexpr int64_t W = 8, R = 5;
#else
constexpr int64_t W = 4, R = 4;
#endif
constexpr int64_t S = 2;

template <int64_t width>
struct Wide {
  typedef float Vector __attribute__((vector_size(width * sizeof(float)), aligned(4), may_alias));
};
typedef Wide<4>::Vector Four;

struct Left { const float* a; int64_t row, column; };        // A and its strides
struct Panel { const float* b; int64_t stride, columns; };   // columns of B, padded with zeros
struct Result { float* c; int64_t stride; bool positive; };  // negative numbers become zero

// rows x vectors sums of w columns each, begun at `start`.
template <int64_t w, int64_t vectors, int64_t rows>
inline void tile(Left left, Panel panel, const float* start, Result result, int64_t k) {
  typedef typename Wide<w>::Vector Vector;
  Vector sums[rows][vectors];
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t s = 0; s < vectors; ++s)
      sums[r][s] = *reinterpret_cast<const Vector*>(start + s * w);
  for (int64_t i = 0; i < k; ++i) {
    Vector b[vectors];
    for (int64_t s = 0; s < vectors; ++s)
      b[s] = *reinterpret_cast<const Vector*>(panel.b + i * panel.stride + s * w);
    const float* a = left.a + i * left.column;
    for (int64_t r = 0; r < rows; ++r) {
      const Vector spread = a[r * left.row] - Vector{};
      for (int64_t s = 0; s < vectors; ++s) sums[r][s] += spread * b[s];
    }
  }
  if (result.positive)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t s = 0; s < vectors; ++s)
        sums[r][s] = sums[r][s] < 0.0f ? Vector{} : sums[r][s];  // what is no number stays so
  for (int64_t r = 0; r < rows; ++r, result.c += result.stride) {
    if (panel.columns == vectors * w)
      for (int64_t s = 0; s < vectors; ++s)
        *reinterpret_cast<Vector*>(result.c + s * w) = sums[r][s];
    else
      std::memcpy(result.c, sums[r], panel.columns * sizeof(float));
  }
}

template <int64_t w, int64_t vectors, int64_t rows>
inline void last_tile(int64_t left_over, Left left, Panel panel, const float* start,
                      Result result, int64_t k) {
  if (left_over == rows)
    tile<w, vectors, rows>(left, panel, start, result, k);
  else if constexpr (rows > 1)
    last_tile<w, vectors, rows - 1>(left_over, left, panel, start, result, k);
}

template <int64_t w, int64_t vectors>
void all_rows(Left left, Panel panel, const float* start, Result result, int64_t m, int64_t k) {
  for (; m >= R; m -= R, left.a += R * left.row, result.c += R * result.stride)
    tile<w, vectors, R>(left, panel, start, result, k);
  if (m) last_tile<w, vectors, R>(m, left, panel, start, result, k);
}

inline void turn_four(const float* from, int64_t stride, float* to, int64_t width) {
  Four r[4], t[4];
  for (int64_t i = 0; i < 4; ++i) r[i] = *reinterpret_cast<const Four*>(from + i * stride);
  t[0] = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5);
  t[1] = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
  t[2] = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
  t[3] = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
  for (int64_t i = 0; i < 2; ++i) {
    const Four low = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 4, 5);
    const Four high = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 6, 7);
    *reinterpret_cast<Four*>(to + 2 * i * width) = low;
    *reinterpret_cast<Four*>(to + (2 * i + 1) * width) = high;
  }
}

// Columns of B, which is stored as its transpose, as rows of `width` numbers.
void pack_turned(const float* b, float* to, int64_t k, int64_t taken, int64_t width) {
  int64_t j = 0;
  for (; j + 4 <= taken; j += 4) {
    int64_t i = 0;
    for (; i + 4 <= k; i += 4) turn_four(b + j * k + i, k, to + i * width + j, width);
    for (; i < k; ++i)
      for (int64_t l = j; l < j + 4; ++l) to[i * width + l] = b[l * k + i];
  }
  for (; j < taken; ++j)
    for (int64_t i = 0; i < k; ++i) to[i * width + j] = b[j * k + i];
}

}  // namespace

extern "C" void kernel(const float* a, const float* b, const float* bias, float* c,
                       int64_t m, int64_t n, int64_t k,
                       int64_t a_turned, int64_t b_turned, int64_t positive, int64_t shifted) {
  thread_local std::vector<float> packed;
  const Left left = a_turned ? Left{a, 1, m} : Left{a, k, 1};
  for (int64_t j = 0; j < n;) {
    const int64_t over = n - j, width = over <= W / 2 ? W / 2 : over <= W ? W : S * W;
    const int64_t taken = over < width ? over : width;
    Panel panel{b + j, n, taken};
    if (b_turned || taken < width) {
      packed.resize(k * width);
      if (taken < width) std::fill(packed.begin(), packed.end(), 0.0f);
      if (b_turned)
        pack_turned(b + j * k, packed.data(), k, taken, width);
      else
        for (int64_t i = 0; i < k; ++i)
          std::memcpy(packed.data() + i * width, b + i * n + j, taken * sizeof(float));
      panel = Panel{packed.data(), width, taken};
    }
    float start[S * W] = {};
    if (shifted) std::memcpy(start, bias + j, taken * sizeof(float));
    const auto multiply =
        width < W ? all_rows<W / 2, 1> : width == W ? all_rows<W, 1> : all_rows<W, S>;
    multiply(left, panel, start, Result{c + j, n, positive != 0}, m, k);
    j += taken;
  }
}
"""

_ARGUMENTS = [*(3 * ["const float*"]), "float*", *(7 * ["int64_t"])]
_FLAGS = ("-ffp-contract=fast",)  # one instruction to multiply and add
_NAMES = {False: "bayesvae_product", True: "bayesvae_shifted_product"}

_operators = torch.library.Library("bayesvae", "FRAGMENT")
_operators.define(
    "product(Tensor a, Tensor b, Tensor? bias, bool a_turned, bool b_turned, bool positive)"
    " -> Tensor"
)


def _by_torch(
    a: Tensor, b: Tensor, bias: Tensor | None, a_turned: bool, b_turned: bool, positive: bool
) -> Tensor:
    """What the operator means: a graph that is not compiled computes it so."""
    a, b = a.t() if a_turned else a, b.t() if b_turned else b
    result = torch.mm(a, b) if bias is None else torch.addmm(bias, a, b)
    return result.relu() if positive else result


def _shape(
    a: Tensor, b: Tensor, bias: Tensor | None, a_turned: bool, b_turned: bool, positive: bool
) -> Tensor:
    return a.new_empty(a.shape[int(a_turned)], b.shape[int(not b_turned)])


_operators.impl("product", _by_torch, "CPU")
_operators.impl("product", _shape, "Meta")


@cache
def product() -> Callable[[Tensor, Tensor, Tensor], Callable[[], None]] | None:
    """``(a, b, out)`` to what puts A B into ``out``; None if the kernel cannot be built here.

    All are float32; A and B have contiguous rows or columns, ``out`` has contiguous rows.  Once it
    is built, compiled code calls the kernel for the operator ``bayesvae::product``.
    """
    try:
        kernel = _built()
    except Exception:  # of any compiler, about any processor
        return None

    def own(a: Tensor, b: Tensor, out: Tensor) -> Callable[[], None]:
        sizes = len(a), b.shape[1], len(b), _is_turned(a), _is_turned(b)
        return partial(kernel, a, b, a, out, *sizes, 0, 0)

    return own


def _is_turned(matrix: Tensor) -> bool:
    return matrix.stride(0) < matrix.stride(1)


# What is private to torch's compiler -------------------------------------------------------------


def _built() -> Callable[..., None]:
    """The kernel as a function of tensors and numbers, known to compiled code."""
    from torch._inductor import ir
    from torch._inductor.codecache import CppPythonBindingsCodeCache
    from torch._inductor.lowering import register_lowering
    from torch._inductor.select_algorithm import extern_kernels

    kernel = CppPythonBindingsCodeCache.load_pybinding(_ARGUMENTS, SOURCE, extra_flags=_FLAGS)

    def plain(a: Tensor, b: Tensor, *sizes: int, out: Tensor) -> None:
        kernel(a, b, a, out, *sizes, 0)

    def shifted(a: Tensor, b: Tensor, bias: Tensor, *sizes: int, out: Tensor) -> None:
        kernel(a, b, bias, out, *sizes, 1)

    def lowered(a: Any, b: Any, bias: Any, a_turned: bool, b_turned: bool, positive: bool) -> Any:
        given = [a, b] if bias is None else [a, b, bias]
        given = [
            ir.ExternKernel.require_contiguous(ir.ExternKernel.realize_input(g)) for g in given
        ]
        m, k = a.get_size()[:: -1 if a_turned else 1]
        n = b.get_size()[int(not b_turned)]
        layout = ir.FixedLayout(a.get_device(), a.get_dtype(), [m, n])
        sizes = tuple(map(int, (m, n, k, a_turned, b_turned, positive)))
        name = _NAMES[bias is not None]
        call = ir.ExternKernelOut(
            layout, given, sizes, python_kernel_name=f"extern_kernels.{name}"
        )
        return ir.TensorBox.create(call)

    for name, function in zip(_NAMES.values(), (plain, shifted), strict=True):
        setattr(extern_kernels, name, function)
    register_lowering(torch.ops.bayesvae.product.default, type_promotion_kind=None)(lowered)
    return kernel
