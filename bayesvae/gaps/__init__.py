"""What inference costs: log p(x) - ELBO taken apart, datum by datum, the model held fixed.

`decomposition` is `compare`; `batch_search` does one batch of it, `comparison` holds the result.
`training_by_route` is `compare_training`: one model, several ways to find q, against the clock.
It stands above `evidence` and `training` and is used by the command line alone.
"""

from bayesvae.gaps import routes
from bayesvae.gaps.comparison import Comparison
from bayesvae.gaps.decomposition import compare
from bayesvae.gaps.training_by_route import compare_training

__all__ = ["Comparison", "compare", "compare_training", "routes"]
