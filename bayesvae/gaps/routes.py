"""Routes: ways to find every lambda_n while the model's own parameters theta are learned.

All of them climb one bound, the mean over data of L(theta, lambda_n), within one family:

    amortized         theta and phi together,  lambda_n = f_phi(x_n)
    semi-amortized    the same,  lambda_n = f_phi(x_n) and k steps up L(theta, .) from there
    per datum, joint  theta and all lambda_n together
    per datum, EM     k steps on the lambda_n of a batch, then one on theta

The last is variational EM with both of its steps left unfinished: "A View of the EM Algorithm that
Justifies Incremental, Sparse, and Other Variants" (Neal and Hinton, 1998).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import nn

from bayesvae.core.pair import Pair
from bayesvae.core.programs import Program
from bayesvae.families import Family
from bayesvae.guides import Amortized, PerDatapoint, SemiAmortized


class Parts(NamedTuple):
    """What a route makes its pair of.

    Attributes:
        model: the generative program; ``site`` is its only local latent.
        encoder: maps ``(B, *event)`` to rows ``(B, family.size)``.
        family: of every q.
        size: N, the number of training data.
        site: name of the latent.
    """

    model: nn.Module
    encoder: nn.Module
    family: Family
    size: int
    site: str = "z"


class Route(NamedTuple):
    """A guide for the model, and in what turns the two are trained.

    Attributes:
        guide: makes the guide of the parts.
        inner_steps: steps on the guide before each on the model; 0 to move both at once.

    Example:
        >>> from bayesvae.guides import SemiAmortized
        >>> longer = Route(lambda p: SemiAmortized(p.encoder, p.family, p.model, 20, site=p.site))
    """

    guide: Callable[[Parts], Program]
    inner_steps: int = 0

    def pair(self, parts: Parts) -> Pair:
        """The model with this route's guide, of one type and on one device."""
        pair = Pair(parts.model, self.guide(parts))
        return pair.to(next(parts.model.parameters()))


AMORTIZED = Route(lambda p: Amortized(p.encoder, p.family, p.site))
"""One network for all data."""
SEMI_AMORTIZED = Route(lambda p: SemiAmortized(p.encoder, p.family, p.model, site=p.site))
"""Five steps from where the network says."""
JOINT = Route(lambda p: PerDatapoint(p.size, p.family, p.site))
"""A row a datum, moved together with the model."""
EM = JOINT._replace(inner_steps=5)
"""A row a datum, moved five times before each step of the model."""

ROUTES: Mapping[str, Route] = MappingProxyType(
    {
        "amortized": AMORTIZED,
        "semi-amortized": SEMI_AMORTIZED,
        "per datum, joint": JOINT,
        "per datum, EM": EM,
    }
)
"""The four by name."""
