"""The pictures of a run: samples, reconstructions, training curve."""

from collections.abc import Sequence
from pathlib import Path

import torch

from bayesvae import likelihoods, plots, programs, trace
from bayesvae.cli.build import Built, Prepared
from bayesvae.evidence import evaluating
from bayesvae.fit import Epoch


def training(epochs: Sequence[Epoch], folder: Path) -> None:
    """Draws ``training_curve.png``: the objective, and the ELBO on validation data."""
    validation = [epoch.validation for epoch in epochs]
    axes = plots.training_curve(
        [epoch.epoch for epoch in epochs],
        [epoch.objective for epoch in epochs],
        None if all(value != value for value in validation) else validation,
    )
    plots.save(axes.figure, folder / "training_curve.png")


def model(built: Built, prepared: Prepared, folder: Path, count: int = 20) -> None:
    """Draws ``samples.png`` from the prior and ``reconstructions.png`` of unseen data.

    A guide with a row a datum knows only its training data; those are reconstructed then.
    """
    device = next(built.pair.parameters()).device
    likelihood, lowest = built.model.likelihood, built.model.lowest
    x = (prepared.test if built.amortized else prepared.seen)[:count].to(device)
    index = torch.arange(len(x), device=device)
    with evaluating(built.pair):
        drawn = trace.draws(programs.sampled(built.pair.model), x, index)
        means = likelihood.mean(drawn[lowest].value)
        noise = isinstance(likelihood, likelihoods.Normal)
        figure = plots.samples(means.cpu(), drawn["x"].value.cpu(), noise=noise)
        plots.save(figure, folder / "samples.png")
        latents = trace.draws(built.pair.guide, x, index)
        means = likelihood.mean(latents[lowest].value)
        plots.save(plots.reconstructions(x.cpu(), means.cpu()), folder / "reconstructions.png")
