"""Training: `fit`, `CompiledSVI`, and `check_pair`, which looks at a pair before either begins.

`loop` is the loop of `fit`, `history` what it remembers and writes, `svi` the interface of
``pyro.infer.SVI``.  It may use `objectives`, `core`, `compiler` and `data`; it knows no part of a
model and no estimator.
"""

from bayesvae.training.check import check_pair, non_finite
from bayesvae.training.history import Epoch, History, NonFiniteError
from bayesvae.training.loop import fit
from bayesvae.training.row_adam import RowAdam
from bayesvae.training.svi import CompiledSVI

__all__ = [
    "CompiledSVI",
    "Epoch",
    "History",
    "NonFiniteError",
    "RowAdam",
    "check_pair",
    "fit",
    "non_finite",
]
