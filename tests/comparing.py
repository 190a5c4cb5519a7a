"""What the tests of `compare` and of its report share."""

from functools import cache, partial

import torch
from rulers import drawn, rotated, shifted

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
