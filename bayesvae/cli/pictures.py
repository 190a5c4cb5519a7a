"""The pictures of a run, and the arrays under them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bayesvae import generate, plots
from bayesvae.cli.facts import Facts
from bayesvae.cli.source import Labelled
from bayesvae.core import files
from bayesvae.core.pair import Pair
from bayesvae.training import Epoch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MANY = 2000
"""At most so many data, and so many draws, go into a density or a histogram."""


class Look(NamedTuple):
    """What is looked at, and where the pictures go.

    Attributes:
        pair: the pair.
        facts: what is known of its data.
        data: data that its guide serves, None where there are none.
        folder: for ``.png`` files.
        arrays: whether to write the arrays beside them, as ``.npz``.
        count: how many draws or data to show.
        steps: points along a path.
    """

    pair: Pair
    facts: Facts
    data: Labelled | None
    folder: Path
    arrays: bool = False
    count: int = 20
    steps: int = 9

    @property
    def table(self) -> bool:
        """Whether the data are columns of numbers."""
        return len(self.facts.event) == 1

    def write(self, name: str, figure: Figure, **arrays: Tensor) -> None:
        """Writes a picture, and its arrays if they are asked for."""
        plots.save(figure, self.folder / f"{name}.png")
        if self.arrays and arrays:
            plain = {key: value.numpy() for key, value in arrays.items()}
            files.write_aside(
                self.folder / f"{name}.npz", lambda aside: np.savez_compressed(aside, **plain)
            )


def training(epochs: Sequence[Epoch], folder: Path) -> None:
    """Draws ``training_curve.png``: the objective, and the ELBO on validation data."""
    validation = [epoch.validation for epoch in epochs]
    axes = plots.training_curve(
        [epoch.epoch for epoch in epochs],
        [epoch.objective for epoch in epochs],
        None if all(value != value for value in validation) else validation,
    )
    plots.save(axes.figure, folder / "training_curve.png")


def draws(look: Look) -> None:
    """``samples``: means and draws of the model; of tables the draws' columns and the data's."""
    count = MANY if look.table else look.count
    drawn = generate.samples(look.pair, count, look.facts.event)
    mean, draw = look.facts.restored(drawn.mean), look.facts.restored(drawn.draw)
    arrays = {"mean": mean, "draw": draw} | {f"latent_{k}": v for k, v in drawn.latents.items()}
    if look.table and look.data is not None:
        data = look.facts.restored(look.data.x[:MANY])
        look.write("samples", plots.columns(data, draw, look.facts.names), **arrays)
    else:
        first = slice(look.count)
        noise = not torch.equal(drawn.draw, drawn.draw.round())
        figure = plots.samples(drawn.mean[first], drawn.draw[first], noise=noise)
        look.write("samples", figure, **arrays)


def reconstructions(look: Look) -> None:
    """``reconstructions``: data, and the means at their codes."""
    x, index = look.data.first(MANY if look.table else look.count)
    means = look.facts.restored(generate.reconstructions(look.pair, (x, index)))
    x = look.facts.restored(x)
    if look.table:
        figure = plots.reconstructed_columns(x, means, look.facts.names)
    else:
        figure = plots.reconstructions(x, means)
    look.write("reconstructions", figure, original=x, mean=means)


def interpolations(look: Look) -> None:
    """``interpolations``: what lies between the codes of two data."""
    x, index = look.data.first(2 * min(look.count // 2 or 1, 8))
    half = len(x) // 2
    starts, ends = (x[:half], index[:half]), (x[half : 2 * half], index[half : 2 * half])
    means = generate.interpolations(look.pair, starts, ends, max(look.steps, 2))
    means = look.facts.restored(means)
    originals = look.facts.restored(torch.stack([starts[0], ends[0]], 1))
    figure = plots.interpolations(means, originals, dimensions=look.facts.names)
    look.write("interpolations", figure, mean=means, original=originals)


def traversals(look: Look) -> None:
    """``traversals``: one latent varied at a time, from the code of the first datum."""
    found = generate.traversals(look.pair, look.data.first(MANY), look.steps)
    site = next(iter(generate.codes(look.pair, look.data.first(2))))
    names = [
        f"{site}[{dim}], variance {activity:.2f}"
        for dim, activity in zip(found.dims.tolist(), found.activity.tolist(), strict=True)
    ]
    found = found._replace(mean=look.facts.restored(found.mean))
    figure = plots.traversals(
        found.mean,
        found.values,
        names,
        label="the latent, in the prior's standard deviations",
        dimensions=look.facts.names,
        note="Rows are sorted by the variance, over the data, of the guide's mean.",
    )
    look.write("traversals", figure, **found._asdict())


def latent(look: Look) -> None:
    """``latent_space``: codes against the prior; of two latents also a ``decoded_grid``."""
    event = look.facts.event
    name, codes = next(iter(generate.codes(look.pair, look.data.first(MANY), draw=True).items()))
    prior = generate.samples(look.pair, MANY, event).latents[name]
    labels = None if look.data.labels is None else look.data.labels[: len(codes)]
    axes = plots.latent_space(codes, labels, prior, label_names=look.facts.label_names)
    arrays = {"codes": codes, "prior": prior} | ({} if labels is None else {"labels": labels})
    look.write("latent_space", axes.figure, **arrays)
    if codes.shape[1:] == (2,) and not look.table:
        first, second = _around(torch.cat([codes, prior]), 15)
        points = torch.cartesian_prod(second, first).flip(-1)
        means = generate.means(look.pair, {name: points}, event).unflatten(0, (15, 15))
        figure = plots.decoded_grid(means, first, second)
        look.write("decoded_grid", figure, mean=means, first=first, second=second)


def posteriors(look: Look) -> None:
    """``posteriors``: the true posteriors of a few data under the contours of q."""
    data = look.data.first(6)
    codes = next(iter(generate.codes(look.pair, data, draw=True).values()))
    first, second = _around(codes, 241, margin=2.0)
    grid = generate.posterior_grid(look.pair, data, first, second)
    titles = [f"datum {position}" for position in data[1].tolist()]
    figure = plots.posteriors(first, second, grid.log_joint, grid.log_guides, titles=titles)
    arrays = {"first": first, "second": second, "log_joint": grid.log_joint}
    look.write("posteriors", figure, **arrays, log_guide=grid.log_guide)


SHOWS: Mapping[str, Callable[[Look], None]] = {
    "draws": draws,
    "reconstructions": reconstructions,
    "interpolations": interpolations,
    "traversals": traversals,
    "latent": latent,
    "posteriors": posteriors,
}
"""What can be shown, by the words of the command line."""


def possible(look: Look) -> list[str]:
    """What can be shown of this pair: paths and spaces need vectors of latents, and data.

    Nothing of data that are neither images nor columns; and curves of more than 40 columns nobody
    could read.
    """
    if not plots.drawable(look.facts.event):
        return []
    if look.data is None:
        return ["draws"]
    shapes = [z.shape[1:] for z in generate.codes(look.pair, look.data.first(2)).values()]
    vectors = bool(shapes) and all(len(shape) == 1 for shape in shapes)
    names = ["draws", "reconstructions"]
    if vectors and len(look.data.x) > 1:
        many = look.table and look.facts.event[0] > 40
        names += ["latent"] if many else ["interpolations", "traversals", "latent"]
    return names + (["posteriors"] if shapes == [(2,)] else [])


def _around(codes: Tensor, points: int, margin: float = 0.0) -> tuple[Tensor, Tensor]:
    """Coordinates of a grid around codes ``(N, 2)``, ``(points,)`` each."""
    low, high = codes.quantile(0.005, 0) - margin, codes.quantile(0.995, 0) + margin
    first, second = (
        torch.linspace(*ends, points) for ends in zip(low.tolist(), high.tolist(), strict=True)
    )
    return first, second
