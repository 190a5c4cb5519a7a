"""Priors: modules whose call, ``prior()``, is the distribution p(z) over one datum's latents.

Any module that returns a distribution will do (a ``zuko`` flow is one); nothing to inherit.  The
prior is part of the generative model: its parameters are learned by the same bound as the
decoder's. At fixed decoder and guide the best prior for the ELBO is the aggregated posterior,
sum_n q(z | x_n) / N, which `Mixture` and `Vamp` approximate.

A prior of your own is one file here and one line below.  It may use `families`; an encoder, as
that of `Vamp`, is handed to it as an object.
"""

from bayesvae.priors.mixture import Mixture
from bayesvae.priors.normal import Normal
from bayesvae.priors.standard_normal import StandardNormal
from bayesvae.priors.vamp import Vamp

__all__ = ["Mixture", "Normal", "StandardNormal", "Vamp"]
