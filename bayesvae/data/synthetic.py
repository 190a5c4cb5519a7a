r"""Made data whose truth is known: the density, the latents, or the factors behind each datum.

=========  ====================================================  ==========================
`curve`    z ~ N(0, 1), x = (z, sin 2z) + noise e                log p(x) by quadrature
`mixture`  k ~ uniform, x = mean_k + scale e                     log p(x) in closed form
`ppca`     z ~ N(0, I), x = W z + m + noise e                    log p(x) = N(m, WW' + noise^2)
`shapes`   pictures of a shape of known kind, place, and size    five factors
=========  ====================================================  ==========================

where e ~ N(0, I). A density to compare with tells how far a model is from the truth, not only from
another model: the mean of log p(x) over the test data is the best that any model can reach on
average. Draws come from a generator of their own; equal seeds give equal data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from bayesvae.data.splits import Splits

KINDS = ("rectangle", "ellipse", "triangle")


class Synthetic(NamedTuple):
    """Data with what is known of them.

    Attributes:
        splits: The data and, where they have such, their classes.
        factors: What each training datum was made from, ``(N, F)``.
        test_factors: Likewise of the test data, ``(M, F)``.
        factor_names: Names of the F factors.
        log_prob: log p(x) of data ``(B, D)``, nats ``(B,)``; None where it is not known.
        parameters: Of the program that made them, by name, in float64.
    """

    splits: Splits
    factors: Tensor
    test_factors: Tensor
    factor_names: tuple[str, ...]
    log_prob: Callable[[Tensor], Tensor] | None
    parameters: dict[str, Tensor]


def curve(size: int = 2000, noise: float = 0.05, seed: int = 0) -> Synthetic:
    r"""Return points along a bent line in the plane, x = (z, sin 2z) + noise e.

    Its density :math:`\int N(z; 0, 1) N(x; (z, \sin 2z), \text{noise}^2 I) dz` is computed by the
    trapezoid rule, whose error falls faster than any power of the step: here to rounding.

    Args:
        size: Number of data; the last fifth is for testing.
        noise: Standard deviation of the noise.
        seed: Names the draw.

    Returns:
        Data of event shape ``(2,)``, their latent z, and log p(x).

    Raises:
        ValueError: If `size` is below 5 or `noise` not positive.

    Example:
        >>> made = curve()
        >>> made.splits.test.shape, made.log_prob(torch.zeros(1, 2)).shape
        (torch.Size([400, 2]), torch.Size([1]))
    """
    _check(size, noise=noise)
    generator = _generator(seed)
    z = _normal(generator, size, 1)
    x = _bent(z) + noise * _normal(generator, size, 2)
    parameters = {"noise": torch.tensor(noise, dtype=torch.float64)}
    return _made(x, z, ("z",), partial(_curve_log_prob, noise=noise), parameters)


def _bent(z: Tensor) -> Tensor:
    return torch.cat([z, (2 * z).sin()], -1)


def _curve_log_prob(x: Tensor, noise: float) -> Tensor:
    # As a function of z the integrand is about as wide as noise / 5**0.5 or more, the line's speed
    # being at most 5**0.5; beyond 12 the latent has no mass.
    step = min(noise, 0.5) / 5
    z = torch.arange(-12, 12, step, dtype=torch.float64, device=x.device)[:, None]
    prior = -(z**2).squeeze(-1) / 2 - 0.5 * math.log(2 * math.pi) + math.log(step)
    means, parts = _bent(z), []
    for part in x.double().split(max(1, 2**22 // len(z))):
        squares = _squares(part, means)
        parts.append(torch.logsumexp(prior - squares / (2 * noise**2), -1))
    return (torch.cat(parts) - math.log(2 * math.pi * noise**2)).to(x.dtype)


def mixture(
    size: int = 2000, components: int = 5, dim: int = 2, scale: float = 0.3, seed: int = 0
) -> Synthetic:
    """Return a mixture of normals with equal weights, their means drawn from N(0, 4 I).

    Args:
        size: Number of data; the last fifth is for testing.
        components: Number K of normals.
        dim: Number D of columns.
        scale: Standard deviation of each normal.
        seed: Names the draw.

    Returns:
        Data of event shape ``(D,)``, their component as class and factor, and log p(x).

    Raises:
        ValueError: If `size` is below 5 or another argument not positive.

    Example:
        >>> mixture().splits.train_labels.unique()
        tensor([0, 1, 2, 3, 4])
    """
    _check(size, components=components, dim=dim, scale=scale)
    generator = _generator(seed)
    means = 2 * _normal(generator, components, dim)
    labels = torch.randint(components, (size,), generator=generator)
    x = means[labels] + scale * _normal(generator, size, dim)
    parameters = {"means": means, "scale": torch.tensor(scale, dtype=torch.float64)}
    log_prob = partial(_mixture_log_prob, means=means, scale=scale)
    return _made(x, labels[:, None], ("component",), log_prob, parameters, labels)


def _mixture_log_prob(x: Tensor, means: Tensor, scale: float) -> Tensor:
    squares = _squares(x.double(), means.to(x.device)) / scale**2
    constant = means.shape[1] * math.log(2 * math.pi * scale**2) / 2 + math.log(len(means))
    return (torch.logsumexp(-squares / 2, -1) - constant).to(x.dtype)


def ppca(
    size: int = 2000, dim: int = 10, latents: int = 2, noise: float = 0.3, seed: int = 0
) -> Synthetic:
    """Return linear-Gaussian data x = W z + m + noise e, the columns of W not orthogonal.

    Hence the posterior of z is correlated, and a diagonal guide has a gap to it.

    Args:
        size: Number of data; the last fifth is for testing.
        dim: Number D of columns.
        latents: Number d of latents, at most D.
        noise: Standard deviation of the noise.
        seed: Names the draw.

    Returns:
        Data of event shape ``(D,)``, their latents z, log p(x), and the parameters `weight`
        ``(D, d)``, `loc` ``(D,)`` and `noise`.

    Raises:
        ValueError: If `size` is below 5, another argument not positive, or d above D.

    Example:
        >>> ppca(latents=3).factors.shape
        torch.Size([1600, 3])
    """
    _check(size, dim=dim, latents=latents, noise=noise)
    if latents > dim:
        raise ValueError(
            f"ppca needs at most as many latents as columns; got {latents} and {dim}."
        )
    generator = _generator(seed)
    axes = torch.linalg.qr(_normal(generator, dim, latents)).Q
    turn = torch.linalg.qr(_normal(generator, latents, latents)).Q
    weight = axes * torch.linspace(2, 0.5, latents, dtype=torch.float64) @ turn
    loc = _normal(generator, dim)
    z = _normal(generator, size, latents)
    x = z @ weight.T + loc + noise * _normal(generator, size, dim)
    names = tuple(f"z{i}" for i in range(1, latents + 1))
    parameters = {"weight": weight, "loc": loc, "noise": torch.tensor(noise, dtype=torch.float64)}
    return _made(x, z, names, partial(_ppca_log_prob, **parameters), parameters)


def _ppca_log_prob(x: Tensor, weight: Tensor, loc: Tensor, noise: Tensor) -> Tensor:
    covariance = weight @ weight.T + noise**2 * torch.eye(len(loc)).to(loc)
    truth = MultivariateNormal(loc.to(x.device), covariance.to(x.device))
    return truth.log_prob(x.double()).to(x.dtype)


def shapes(size: int = 5000, image: int = 28, seed: int = 0) -> Synthetic:
    """Return pictures of one white shape each, on black, made from five independent factors.

    A rectangle, ellipse or triangle stands clear of the frame. No two values of the factors give
    the same picture: the shapes look different after every turn by less than half a circle.

    Args:
        size: Number of pictures; the last fifth is for testing.
        image: Height and width.
        seed: Names the draw.

    Returns:
        Grey levels in [0, 1], smooth at the edges, of event shape ``(1, H, W)``; the kind as class
        and first factor, then the centre's x and y and the length of the shape, as shares of the
        frame, and the rotation in radians, in [0, pi).

    Raises:
        ValueError: If `size` is below 5 or `image` below 8.

    Example:
        >>> made = shapes(100)
        >>> made.splits.train.shape, made.factor_names
        (torch.Size([80, 1, 28, 28]), ('kind', 'x', 'y', 'scale', 'rotation'))
    """
    _check(size, image=image)
    if image < 8:
        raise ValueError(f"shapes needs images of at least 8 x 8; got {image}.")
    generator = _generator(seed)
    kind = torch.randint(len(KINDS), (size,), generator=generator)
    low = torch.tensor([1 / 3, 1 / 3, 0.25, 0.0], dtype=torch.float64)
    high = torch.tensor([2 / 3, 2 / 3, 0.55, math.pi], dtype=torch.float64)
    rest = low + (high - low) * torch.rand(size, 4, generator=generator, dtype=torch.float64)
    factors = torch.cat([kind[:, None], rest], 1)
    # Drawn in parts, for the distances take several times the memory of the pictures.
    x = torch.cat([_drawn(part, image).float() for part in factors.split(1000)])
    names = ("kind", "x", "y", "scale", "rotation")
    made = _made(x, factors, names, None, {}, kind)
    return made._replace(splits=made.splits._replace(label_names=KINDS))


def _drawn(factors: Tensor, image: int) -> Tensor:
    """Pictures ``(B, 1, H, W)``: the share of each pixel that lies inside, by its distance."""
    kind, x, y, scale, rotation = factors[:, :, None, None].unbind(1)
    centres = (torch.arange(image, dtype=torch.float64) + 0.5) / image
    right, down = centres[None, None, :] - x, centres[None, :, None] - y
    u = (rotation.cos() * right + rotation.sin() * down) * 2 / scale
    v = (rotation.cos() * down - rotation.sin() * right) * 2 / scale
    distances = torch.stack([_rectangle(u, v), _ellipse(u, v), _triangle(u, v)])
    distance = distances.gather(0, kind.long().expand_as(u)[None])[0] * scale / 2
    return (0.5 - distance * image).clamp(0, 1).unsqueeze(1)


# Signed distances, negative inside, to shapes of half length 1 and no symmetry under turns by less
# than half a circle; exact beside the edges, which is where they matter.


def _rectangle(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs() - 0.85, v.abs() - 0.5)


def _ellipse(u: Tensor, v: Tensor) -> Tensor:
    radius = (u**2 + (v / 0.5) ** 2).sqrt().clamp_min(1e-6)
    slope = (u**2 + (v / 0.25) ** 2).sqrt().clamp_min(1e-6) / radius
    return (radius - 1) / slope


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    # Corners (1, 0) and (-0.8, +-0.6), with the apex on the circle of the half length.
    sides = (0.6 * (u - 1) + 1.8 * v.abs()) / math.hypot(0.6, 1.8)
    return torch.maximum(sides, -0.8 - u)


def _squares(x: Tensor, means: Tensor) -> Tensor:
    # The other way, by matrix products, cancels where the noise is small.
    return torch.cdist(x, means, compute_mode="donot_use_mm_for_euclid_dist").square()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _made(
    x: Tensor,
    factors: Tensor,
    names: tuple[str, ...],
    log_prob: Callable[[Tensor], Tensor] | None,
    parameters: dict[str, Tensor],
    labels: Tensor | None = None,
) -> Synthetic:
    x, factors = x.to(torch.get_default_dtype()), factors.to(torch.get_default_dtype())
    test = len(x) // 5
    marks = (None, None) if labels is None else (labels[:-test], labels[-test:])
    splits = Splits(x[:-test], x[-test:], *marks)
    return Synthetic(splits, factors[:-test], factors[-test:], names, log_prob, parameters)


def _check(size: int, **positive: float) -> None:
    if size < 5:
        raise ValueError(f"Made data need size >= 5, for a fifth is for testing; got {size}.")
    for name, value in positive.items():
        if not 0 < value < math.inf:
            raise ValueError(f"Made data need {name} to be positive; got {value}.")
