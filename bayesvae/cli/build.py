"""From a configuration to data and a pair: supplies what only the data can tell."""

import importlib
import inspect
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jsonargparse import Namespace
from torch import Tensor

from bayesvae import data, guides, likelihoods, networks, pairs
from bayesvae.families import Family
from bayesvae.pair import Pair


class Prepared(NamedTuple):
    """The data of a run.

    Attributes:
        train: to train on, ``(N, *event)``; grey levels if binarised afresh in each batch.
        validation: held out of the training data, as evaluated.
        test: unseen, as evaluated.
        seen: the training data as evaluated (binarised once).
        dynamic: whether batches are binarised afresh.
    """

    train: Tensor
    validation: Tensor | None
    test: Tensor
    seen: Tensor
    dynamic: bool

    def loader(self, batch_size: int) -> data.Loader:
        """Shuffled batches to train on."""
        transform = torch.bernoulli if self.dynamic else None
        return data.Loader(self.train, batch_size, shuffle=True, transform=transform)


class Built(NamedTuple):
    """A pair and the programs behind it.

    Attributes:
        pair: the pair.
        model: its generative program.
        amortized: whether its guide serves unseen data.
    """

    pair: Pair
    model: pairs.LatentLayers
    amortized: bool


def first(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first ``count`` data with their positions, for guides that look them up."""
    return x[:count], torch.arange(len(x[:count]))


def prepare(config: Namespace) -> Prepared:
    """Reads, splits and binarises the data that a configuration names.

    Evaluated data are binarised once, by the configuration's seed, so that every evaluation of a
    run sees the same bits.

    Raises:
        ValueError: if binarisation and likelihood exclude each other.
        FileNotFoundError: if the data are not there.
    """
    splits = _read(config)
    bernoulli = config.likelihood.class_path.endswith("Bernoulli")
    binarise = config.binarise or ("dynamic" if bernoulli else "none")
    train, validation = splits.train, None
    if config.validation > 0:
        train, validation = splits.hold_out(config.validation)
    if config.levels is not None:
        if config.levels < 2 or binarise != "none":
            raise ValueError(
                "--levels needs at least 2 and excludes binarisation; got "
                f"{config.levels} with --binarise {binarise}. Add --binarise none."
            )
        levels = [_quantised(x, config.levels) for x in (train, validation, splits.test)]
        return Prepared(*levels, levels[0], False)
    if binarise == "none":
        return Prepared(train, validation, splits.test, train, False)
    bits = [
        None if x is None else data.static_binarisation(x, config.seed + offset)
        for offset, x in enumerate((train, validation, splits.test))
    ]
    dynamic = binarise == "dynamic"
    return Prepared(train if dynamic else bits[0], bits[1], bits[2], bits[0], dynamic)


def _read(config: Namespace) -> data.Splits:
    if config.data == "digits":
        return data.digits()
    reader = data.mnist if config.data == "mnist" else data.fashion_mnist
    return reader(config.data_root)


def _quantised(x: Tensor | None, levels: int) -> Tensor | None:
    return None if x is None else (x * (levels - 1)).round()


def build(config: Namespace, prepared: Prepared) -> Built:
    """The pair that a configuration describes, untrained, on the CPU.

    Raises:
        ValueError: if parts and data do not fit.
    """
    event, seen = tuple(prepared.train.shape[1:]), prepared.seen
    latent = list(config.latent)
    if min(latent) < 1:
        raise ValueError(f"--latent needs positive numbers; got {latent}.")
    decoder = _decoder(config, latent[0], event, seen)
    likelihood = _make(config.likelihood, network=decoder)
    families = [_make(config.family, dim=dim) for dim in latent]
    if len(latent) == 1:
        guide = _guide(config, event, families[0], len(prepared.train))
        if isinstance(guide, guides.PerDatapoint) and "encoder" in _takes(config.prior):
            raise ValueError(
                "--prior Vamp needs an encoder; got --guide PerDatapoint. Use --guide Amortized, "
                "or another prior."
            )
        prior = _make(config.prior, dim=latent[0], encoder=guide, data=seen)
        model = pairs.LatentLayers(prior, (), likelihood)
        return Built(Pair(model, guide), model, not isinstance(guide, guides.PerDatapoint))
    return _layers(config, latent, event, families, likelihood, seen)


def _named(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _takes(part: Namespace) -> set[str]:
    return set(inspect.signature(_named(part.class_path)).parameters)


def _own_arguments(part: Namespace) -> dict[str, Any]:
    return dict(vars(part.get("init_args") or Namespace()))


def _make(part: Namespace, **supplied: Any) -> Any:
    """Makes a part from its class path, its own arguments, and those supplied that it takes."""
    made, takes = _named(part.class_path), _takes(part)
    own = _own_arguments(part)
    for key, value in own.items():
        if isinstance(value, Namespace) and "class_path" in value:
            own[key] = partial(_named(value.class_path), **_own_arguments(value))
    return made(**{key: value for key, value in supplied.items() if key in takes}, **own)


def _guide(config: Namespace, event: tuple, family: Family, size: int) -> Any:
    encoder = _make(config.encoder, inputs=event, image=event, outputs=family.size)
    return _make(config.guide, network=encoder, family=family, size=size)


def _decoder(config: Namespace, latent: int, event: tuple, x: Tensor) -> Any:
    kind = config.likelihood.class_path.rpartition(".")[2]
    outputs = event if kind != "Categorical" else (*event, config.levels or int(x.max()) + 1)
    bias = networks.data_logits(x) if kind == "Bernoulli" else None
    return _make(config.decoder, inputs=latent, image=event, outputs=outputs, output_bias=bias)


def _layers(
    config: Namespace,
    latent: list[int],
    event: tuple,
    families: list[Family],
    likelihood: Any,
    x: Tensor,
) -> Built:
    if not config.guide.class_path.endswith("Amortized"):
        raise ValueError(
            "Several layers need --guide Amortized; their guide climbs from the data."
        )

    def network(inputs: int, outputs: int) -> networks.MLP:
        return networks.MLP(inputs, config.between, outputs)

    encoder = _make(config.encoder, inputs=event, image=event, outputs=families[0].size)
    posteriors = [guides.Amortized(encoder, families[0])]
    posteriors += [
        guides.Amortized(network(below, family.size), family)
        for below, family in zip(latent[:-1], families[1:], strict=True)
    ]
    conditionals = [
        likelihoods.Normal(network(above, below), network(above, below))
        for below, above in pairwise(latent)
    ]
    guide = pairs.BottomUp(posteriors)
    prior = _make(config.prior, dim=latent[-1], encoder=guide, data=x)
    model = pairs.LatentLayers(prior, conditionals, likelihood)
    return Built(Pair(model, guide), model, True)
