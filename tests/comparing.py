"""What the tests of `compare` and of its report share."""

from functools import cache, partial

import pyro
import pyro.distributions as dist
import torch
from linear_gaussian import drawn, rotated, shifted
from torch import nn

from bayesvae import compare
from bayesvae.optima import Ascent

quiet = partial(compare, progress=False)
SHORT = Ascent(particles=2, stages=1, window=2, windows=1)
SHIFT = torch.tensor([0.3, 0.2], dtype=torch.float64)


@cache
def shifted_comparison():
    """A guide beside the best diagonal normal of a posterior that is far from diagonal."""
    model = rotated()
    seen, unseen = drawn(model, 30), drawn(model, 26, seed=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = {"particles": 3000, "evidence_particles": 4000}
        result = quiet(shifted(model, SHIFT), seen, unseen, batch_size=20, **draws)
    return model, {"train": seen, "unseen": unseen}, result


class Tutorial(nn.Module):
    """Written as in Pyro's own tutorial: methods, no index, site names of its own."""

    def __init__(self):
        super().__init__()
        self.decoder, self.encoder = nn.Linear(2, 5), nn.Linear(5, 4)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            zero, one = torch.zeros(x.shape[0], 2), torch.ones(x.shape[0], 2)
            code = pyro.sample("latent", dist.Normal(zero, one).to_event(1))
            pyro.sample("obs", dist.Normal(self.decoder(code), 0.7).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, raw = self.encoder(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, raw.exp()).to_event(1))
