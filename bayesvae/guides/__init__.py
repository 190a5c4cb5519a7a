"""Guides: where the variational parameters lambda_n of a datum come from.

Variational inference asks for one q_{lambda_n}(z) a datum.  `PerDatapoint` keeps every lambda_n as
a free row; `Amortized` lets one network predict it, lambda_n = f_phi(x_n), which is what the
encoder of a VAE is.  The family, and with it the best bound that could be reached, is the same
in both, so the difference between them is the price of amortization and nothing else.
`SemiAmortized` lies between: it starts where the network says and climbs the datum's own bound for
a few steps.

A guide is a Pyro program of ``(x, index)``; ``guide.posterior(x, index)`` is the distribution that
it samples from.  A guide of your own is one file here.  It may use `families` and `core`.
"""

from bayesvae.guides.amortized import Amortized
from bayesvae.guides.per_datapoint import PerDatapoint
from bayesvae.guides.semi_amortized import SemiAmortized, uphill

__all__ = ["Amortized", "PerDatapoint", "SemiAmortized", "uphill"]
