"""Sample sites as a run of a program left them, and the two programs' sites of one joint run."""

from typing import NamedTuple

from pyro.distributions.util import scale_and_mask
from pyro.poutine.indep_messenger import CondIndepStackFrame
from torch import Tensor
from torch.distributions import Distribution

from bayesvae.core.distributions import innermost
from bayesvae.core.programs import DATA_PLATE


class Site(NamedTuple):
    """One sample site as a run left it.

    Attributes:
        name: the site's name.
        distribution: its distribution, expanded over the plates.
        value: the draw or the observation, shape ``distribution.batch_shape + event_shape``.
        observed: whether the program observed it.
        plates: the plates around it, as Pyro's frames (name, dim, size, full size).
        scale: Pyro's scale, plate factors included.
        mask: Pyro's mask, or None.
        auxiliary: whether the guide declares it a latent that the model does not have.
    """

    name: str
    distribution: Distribution
    value: Tensor
    observed: bool
    plates: tuple[CondIndepStackFrame, ...]
    scale: Tensor | float
    mask: Tensor | bool | None
    auxiliary: bool = False

    @property
    def data_plate(self) -> CondIndepStackFrame | None:
        """The frame of the data plate, None at a shared site."""
        return next((f for f in self.plates if f.name == DATA_PLATE), None)

    @property
    def weight(self) -> Tensor | float:
        """The scale without the data plate's subsampling factor N / B."""
        frame = self.data_plate
        if frame is None or frame.full_size in (None, frame.size):
            return self.scale
        return self.scale * (frame.size / frame.full_size)

    @property
    def base(self) -> Distribution:
        """The distribution inside any wrapper and ``Independent``."""
        return innermost(self.distribution)

    def log_density(self, weight: Tensor | float = 1.0) -> Tensor:
        """log-density of the value, masked, times ``weight``; shape of the site's batch."""
        return scale_and_mask(self.raw_log_density(), weight, self.mask)

    def raw_log_density(self) -> Tensor:
        """log-density of the value with neither scale nor mask."""
        try:
            return self.distribution.log_prob(self.value)
        except ValueError as error:
            raise ValueError(f"Site '{self.name}': {error}") from error


class Sites(NamedTuple):
    """The sample sites of one joint run, in the order of the programs.

    Attributes:
        model: sites of the model, observed ones included, by name.
        guide: sites of the guide, by name; observed ones are its factors.
    """

    model: dict[str, Site]
    guide: dict[str, Site]

    @property
    def data_plate(self) -> CondIndepStackFrame:
        """The data plate's frame.

        Raises:
            ValueError: if no site lies inside it, or if it is not the rightmost dim.
        """
        for site in (*self.model.values(), *self.guide.values()):
            if (frame := site.data_plate) is not None:
                if frame.dim != -1:
                    raise ValueError(
                        f"The data plate must be the rightmost, dim=-1; at site '{site.name}' it "
                        f'has dim={frame.dim}. Open pyro.plate("{DATA_PLATE}", ..., dim=-1) first.'
                    )
                return frame
        raise ValueError(
            f'A pair needs `with pyro.plate("{DATA_PLATE}", ...)` around the sites of one datum; '
            f"found only shared sites {sorted(self.model)}. Add the plate to model and guide."
        )

    @property
    def size(self) -> int:
        """N, the size of the data set that the batch stands for."""
        frame = self.data_plate
        return frame.size if frame.full_size in (None, -1) else frame.full_size
