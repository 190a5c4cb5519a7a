"""From a configuration to a pair: supplies what only the data can tell."""

import importlib
import inspect
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor

from bayesvae import guides, likelihoods, networks, pairs
from bayesvae.cli.facts import Facts
from bayesvae.core.dependence import rows_of
from bayesvae.core.pair import Pair
from bayesvae.families import Family


def build(config: Namespace, facts: Facts, seen: Tensor | None = None) -> Pair:
    """The pair that a configuration describes, untrained, on the CPU.

    Args:
        config: the options of ``bayesvae fit``, settled.
        facts: what is known of the data.
        seen: training data as evaluated, from which some parts start; None to rebuild a pair whose
            state is loaded next, for which a stand-in of the same shape and range serves.

    Raises:
        ValueError: if parts and data do not fit.
    """
    x = facts.stand_in() if seen is None else seen
    if config.get("pair") is not None:
        return _whole_pair(config, facts, x)
    latent = list(config.latent)
    decoder = _decoder(config, latent[0], facts, x)
    likelihood = _make(config.likelihood, network=decoder, start=max(x.std().item(), 1e-3))
    families = [_make(config.family, dim=dim) for dim in latent]
    if len(latent) > 1:
        return _layers(config, latent, facts, families, likelihood, x)
    encoder = _encoder(config, facts, families[0].size)
    if "model" in _takes(config.guide):  # a guide that looks at the model comes after it
        start = guides.Amortized(encoder, families[0])
        prior = _make(config.prior, dim=latent[0], encoder=start, data=x)
        model = pairs.LatentLayers(prior, (), likelihood)
        return Pair(model, _make(config.guide, network=encoder, family=families[0], model=model))
    guide = _make(config.guide, network=encoder, family=families[0], size=facts.size)
    if isinstance(guide, guides.PerDatapoint) and "encoder" in _takes(config.prior):
        raise ValueError(
            "--prior Vamp needs an encoder; got --guide PerDatapoint. Use --guide Amortized, or "
            "another prior."
        )
    prior = _make(config.prior, dim=latent[0], encoder=guide, data=x)
    return pairs.vae(prior, likelihood, guide)


def serves_unseen(pair: Pair, x: Tensor, index: Tensor, size: int) -> bool:
    """Whether the guide serves data that it was not trained on: it has no row for each datum."""
    return rows_of(pair.guide, list(pair.parameters()), x, index, size) is None


def _whole_pair(config: Namespace, facts: Facts, x: Tensor) -> Pair:
    """The pair that one class holds: the package's PPCA, or a user's with `model` and `guide`."""
    latent = config.latent[0] if len(config.latent) == 1 else list(config.latent)
    if _named(config.pair.class_path) is pairs.PPCA:
        if len(facts.event) != 1 or not isinstance(latent, int) or latent >= facts.event[0]:
            raise ValueError(
                f"--pair PPCA needs columns and fewer latents than columns; got data of shape "
                f"{facts.event} and --latent {latent}. Choose fewer, or other parts."
            )
        weight = torch.randn(prod(facts.event), latent) / latent**0.5
        return pairs.ppca(pairs.PPCA(weight, x.mean(0), 1.0))
    made = _make(config.pair, event=facts.event, latent=latent, data=x, size=facts.size)
    programs = [getattr(made, role, None) for role in ("model", "guide")]
    if not all(map(callable, programs)):
        raise ValueError(
            f"--pair needs a class with programs `model` and `guide`; {config.pair.class_path} "
            "has not both. Define them as methods of (self, x)."
        )
    return Pair(*programs)


def _named(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _takes(part: Namespace) -> set[str]:
    return set(inspect.signature(_named(part.class_path)).parameters)


def _own_arguments(part: Namespace) -> dict[str, Any]:
    return dict(vars(part.get("init_args") or Namespace()))


def _make(part: Namespace, **supplied: Any) -> Any:
    """Makes a part from its class path, its own arguments, and those supplied that it takes.

    Raises:
        ValueError: if a user's class cannot be made so.
    """
    made, takes = _named(part.class_path), _takes(part)
    own = _own_arguments(part)
    for key, value in own.items():
        if isinstance(value, Namespace) and "class_path" in value:
            own[key] = partial(_named(value.class_path), **_own_arguments(value))
    given = {key: value for key, value in supplied.items() if key in takes}
    try:
        return made(**given, **own)
    except TypeError as error:
        raise ValueError(
            f"{part.class_path} is made with {', '.join([*given, *own]) or 'nothing'}; that "
            f"stopped with: {error}. Arguments without default are options of its own."
        ) from error


def _encoder(config: Namespace, facts: Facts, outputs: int) -> Any:
    image = _image(config.encoder, "encoder", facts)
    return _make(config.encoder, inputs=facts.event, image=image, outputs=outputs)


def _decoder(config: Namespace, latent: int, facts: Facts, x: Tensor) -> Any:
    kind = config.likelihood.class_path.rpartition(".")[2]
    outputs = facts.event if kind != "Categorical" else (*facts.event, facts.levels)
    bias = networks.data_logits(x) if kind == "Bernoulli" else None
    image = _image(config.decoder, "decoder", facts)
    return _make(config.decoder, inputs=latent, image=image, outputs=outputs, output_bias=bias)


def _image(part: Namespace, key: str, facts: Facts) -> tuple[int, ...]:
    """The event, for networks that ask for an image.

    Raises:
        ValueError: if it is none.
    """
    if "image" in _takes(part) and len(facts.event) != 3:
        raise ValueError(
            f"--{key} {part.class_path.rpartition('.')[2]} needs images (C, H, W); got data of "
            f"shape {facts.event}. Use --{key} MLP."
        )
    return facts.event


def _layers(
    config: Namespace,
    latent: list[int],
    facts: Facts,
    families: list[Family],
    likelihood: Any,
    x: Tensor,
) -> Pair:
    if _named(config.guide.class_path) is not guides.Amortized:
        raise ValueError(
            "Several layers need --guide Amortized; their guide climbs from the data. Give one "
            "number of latents, or leave --guide out."
        )

    def network(inputs: int, outputs: int) -> networks.MLP:
        return networks.MLP(inputs, config.between, outputs)

    encoder = _encoder(config, facts, families[0].size)
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
    return Pair(pairs.LatentLayers(prior, conditionals, likelihood), guide)
