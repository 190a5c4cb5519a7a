"""Likelihoods: ``likelihood(z)`` is the distribution p(x | z) over one datum's event.

The network is the decoder; what its output parametrises is the likelihood's business.  Every
axis of the network's output beyond z's leading dims belongs to the event.
``likelihood.mean(z)`` is E[x | z], in the units of x; ``likelihood.sample(z)`` is a draw, which
for real-valued data looks different from the mean: the noise is part of the model.

The same classes serve as conditionals p(z_l | z_{l+1}) between layers of latents.  A likelihood of
your own is one file here and one line below; it may use `families`.
"""

from bayesvae.likelihoods.base import Likelihood
from bayesvae.likelihoods.bernoulli import Bernoulli
from bayesvae.likelihoods.categorical import Categorical
from bayesvae.likelihoods.normal import Normal
from bayesvae.likelihoods.poisson import Poisson

__all__ = ["Bernoulli", "Categorical", "Likelihood", "Normal", "Poisson"]
