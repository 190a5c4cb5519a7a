"""Data drawn from a model together with the latents that made them.

They are exact draws of p(x, z), so that of each datum one exact draw of p(z | x) is known: what
bounds from above and the calibration of a guide rest on.
"""

from collections.abc import Sequence

from torch import Tensor

from bayesvae.core import programs, trace
from bayesvae.core.pair import Pair
from bayesvae.generate.sampling import blank, drawable, observed


def joint_draws(
    pair: Pair, model: programs.Program, n: int, event: Sequence[int]
) -> tuple[Tensor, dict[str, trace.Site]]:
    """Data drawn from the model, and the run that made them.

    Args:
        pair: the pair, on whose device they are drawn.
        model: its generative program, or that with shared latents fixed.
        n: how many data.
        event: shape of one datum.

    Returns:
        x ``(n, *event)``, and the sites of the run, latents among them, by name.

    Raises:
        ValueError: if the model observes more than one site, so that x is not one draw, or has a
            latent with no distribution to draw from.

    Example:
        >>> import torch
        >>> from bayesvae.pairs import PPCA, ppca
        >>> pair = ppca(PPCA(torch.eye(3)[:, :1], torch.zeros(3), 1.0))
        >>> x, sites = joint_draws(pair, pair.model, 5, (3,))
        >>> x.shape, sites["z"].value.shape
        (torch.Size([5, 3]), torch.Size([5, 1]))
    """
    x, index = blank(pair, n, event)
    sites = drawable(model, x, index)
    seen = [name for name, site in sites.items() if site.observed and site.data_plate]
    if len(seen) != 1:
        raise ValueError(
            f"Data can be drawn where the model observes one site in the data plate; got {seen}."
        )
    return sites[observed(sites, x)].distribution.sample().reshape(x.shape), sites
