"""The linear-Gaussian state-space model: the ruler for latents that depend on each other in time.

    z_1 ~ N(m_1, diag(s_1^2)),   z_t | z_{t-1} ~ N(A z_{t-1}, diag(q^2)),   t = 2 ... T
    x_t | z_t ~ N(C z_t + c, diag(r^2))

One sequence is one datum and its whole path (z_1, ..., z_T), laid side by side, one latent vector
of T d entries.  Stacked, the equations of the path read G z = mu + S e with e ~ N(0, I) and
G = I - (A below the diagonal), so that z ~ N(G^-1 mu, (G^-1 S)(G^-1 S)'), and its posterior is
that of one large linear-Gaussian model.

Step by step the same answers cost T times d^3 instead of (T d)^3: the filter carries
p(z_t | x_1, ..., x_t) forward and multiplies up log p(x_t | x_1, ..., x_{t-1}) ("A New Approach to
Linear Filtering and Prediction Problems", Kalman, 1960); the smoother goes back over it to
p(z_t | x_1, ..., x_T) ("Maximum Likelihood Estimates of Linear Dynamic Systems", Rauch, Tung and
Striebel, 1965).  Covariances and gains do not depend on the data, so they are the same for all.
"""

from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from bayesvae.core.programs import DATA_PLATE
from bayesvae.families import positive, raw_of
from bayesvae.rulers.conditioning import conditioned
from bayesvae.rulers.ruler import Ruler


class Filtered(NamedTuple):
    """What the filter knows at each step.

    Attributes:
        log_evidence: log p(x_1, ..., x_T), ``(B,)`` nats.
        predicted: p(z_t | x_1, ..., x_{t-1}), a mean ``(B, d)`` and a covariance ``(d, d)`` a
            step.
        updated: p(z_t | x_1, ..., x_t) likewise.
    """

    log_evidence: Tensor
    predicted: list[tuple[Tensor, Tensor]]
    updated: list[tuple[Tensor, Tensor]]


class StateSpace(Ruler):
    """A linear-Gaussian state-space model of sequences; ``z`` is the path, ``(T d,)``.

    Args:
        transition: A, ``(d, d)``: z_t is about A z_{t-1}.
        emission: C, ``(D, d)``.
        loc: c, ``(D,)``.
        process_scales: q > 0, ``(d,)``.
        noise_scales: r > 0, ``(D,)``.
        initial_loc: m_1, ``(d,)``.
        initial_scales: s_1 > 0, ``(d,)``.

    Raises:
        ValueError: for other shapes, or scales that are not positive.

    Example:
        >>> one = torch.ones(1)
        >>> ruler = StateSpace(one[:, None], one[:, None], 0 * one, one, one, 0 * one, one)
        >>> x = torch.zeros(2, 5, 1)
        >>> ruler.posterior(x).event_shape, ruler.marginals(x).mean.shape
        (torch.Size([5]), torch.Size([2, 5, 1]))
    """

    def __init__(
        self,
        transition: Tensor,
        emission: Tensor,
        loc: Tensor,
        process_scales: Tensor,
        noise_scales: Tensor,
        initial_loc: Tensor,
        initial_scales: Tensor,
    ) -> None:
        super().__init__()
        means = {"transition": transition, "emission": emission, "loc": loc}
        means["initial_loc"] = initial_loc
        scales = {"process_scales": process_scales, "noise_scales": noise_scales}
        scales["initial_scales"] = initial_scales
        _require(means | scales, scales)
        for name, value in means.items():
            self.register_parameter(name, nn.Parameter(value.clone()))
        for name, value in scales.items():
            self.register_parameter(f"raw_{name}", nn.Parameter(raw_of(value)))

    @property
    def process_scales(self) -> Tensor:
        """q, ``(d,)``."""
        return positive(self.raw_process_scales)

    @property
    def noise_scales(self) -> Tensor:
        """r, ``(D,)``."""
        return positive(self.raw_noise_scales)

    @property
    def initial_scales(self) -> Tensor:
        """s_1, ``(d,)``."""
        return positive(self.raw_initial_scales)

    def prior(self, steps: int) -> dist.MultivariateNormal:
        """p(z_1, ..., z_T) for T steps, event shape ``(T d,)``."""
        d = len(self.transition)
        one = torch.eye(steps * d).to(self.transition)
        below = torch.diag(one.new_ones(steps - 1), -1)
        equations = one - torch.kron(below, self.transition)
        scales = torch.cat([self.initial_scales, self.process_scales.repeat(steps - 1)])
        start = torch.cat([self.initial_loc, one.new_zeros((steps - 1) * d)])
        stacked = torch.cat([start.unsqueeze(-1), scales.diag()], -1)
        solved = torch.linalg.solve_triangular(equations, stacked, upper=False)
        return dist.MultivariateNormal(solved[:, 0], scale_tril=solved[:, 1:])

    def means(self, z: Tensor) -> Tensor:
        """E[x | z] for paths ``(*, T d)``: ``(*, T, D)``."""
        return z.unflatten(-1, (-1, len(self.transition))) @ self.emission.T + self.loc

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Runs the program on sequences ``(B, T, D)``; returns x, drawn if a handler asks."""
        with pyro.plate(DATA_PLATE, len(x)):
            z = pyro.sample("z", self.prior(x.shape[1]))
            likelihood = dist.Normal(self.means(z), self.noise_scales).to_event(2)
            return pyro.sample("x", likelihood, obs=x)

    def posterior(self, x: Tensor, index: Tensor | None = None) -> dist.MultivariateNormal:
        """p(z_1, ..., z_T | x) exactly: event shape ``(T d,)``, batch shape ``(B,)``."""
        prior, steps = self.prior(x.shape[1]), x.shape[1]
        weight = torch.block_diag(*[self.emission] * steps)
        residual = (x - self.means(prior.loc)).flatten(1)
        return conditioned(prior, weight, self.noise_scales.repeat(steps), residual)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x) exactly, by the filter, ``(B,)`` nats, for x ``(B, T, D)``."""
        return self.filtered(x).log_evidence

    def filtered(self, x: Tensor) -> Filtered:
        """The Kalman filter on sequences ``(B, T, D)``."""
        mean = self.initial_loc.expand(len(x), -1)
        covariance = self.initial_scales.square().diag()
        noise = self.noise_scales.square().diag()
        process = self.process_scales.square().diag()
        log_evidence, predicted, updated = x.new_zeros(len(x)), [], []
        for observed in x.unbind(1):
            predicted.append((mean, covariance))
            expected = self.emission @ covariance @ self.emission.T + noise
            surprise = observed - mean @ self.emission.T - self.loc
            density = dist.MultivariateNormal(torch.zeros_like(self.loc), expected)
            log_evidence = log_evidence + density.log_prob(surprise)
            gain = torch.linalg.solve(expected, self.emission @ covariance).T
            kept = torch.eye(len(gain)).to(gain) - gain @ self.emission
            # Joseph's form: a sum of squares stays positive definite whatever is rounded.
            covariance = kept @ covariance @ kept.T + gain @ noise @ gain.T
            mean = mean + surprise @ gain.T
            updated.append((mean, covariance))
            mean = mean @ self.transition.T
            covariance = self.transition @ covariance @ self.transition.T + process
        return Filtered(log_evidence, predicted, updated)

    def marginals(self, x: Tensor) -> dist.MultivariateNormal:
        """p(z_t | x_1, ..., x_T) exactly, by the smoother.

        Args:
            x: sequences ``(B, T, D)``.

        Returns:
            Normals over ``(d,)`` with batch shape ``(B, T)``.
        """
        _, predicted, updated = self.filtered(x)
        smoothed = [updated[-1]]
        for (ahead, spread), (mean, covariance) in zip(
            predicted[:0:-1], updated[-2::-1], strict=True
        ):
            gain = torch.linalg.solve(spread, self.transition @ covariance).T
            later_mean, later_covariance = smoothed[-1]
            mean = mean + (later_mean - ahead) @ gain.T
            covariance = covariance + gain @ (later_covariance - spread) @ gain.T
            smoothed.append((mean, (covariance + covariance.T) / 2))
        means, covariances = zip(*reversed(smoothed), strict=True)
        return dist.MultivariateNormal(torch.stack(means, 1), torch.stack(covariances))


def _require(named: dict[str, Tensor], scales: dict[str, Tensor]) -> None:
    d, features = named["transition"].shape[:1], named["loc"].shape[:1]
    wanted = {"transition": d + d, "emission": features + d, "loc": features}
    wanted |= {"initial_loc": d, "initial_scales": d, "process_scales": d}
    wanted["noise_scales"] = features
    wrong = {n: tuple(named[n].shape) for n, shape in wanted.items() if named[n].shape != shape}
    wrong |= {n: f"{v.min().item():.3g}" for n, v in scales.items() if not (v > 0).all()}
    if wrong:
        raise ValueError(
            "StateSpace needs transition (d, d), emission (D, d), loc and noise_scales (D,), "
            "process_scales, initial_loc and initial_scales (d,), scales positive; got "
            f"{', '.join(f'{name} {received}' for name, received in wrong.items())}."
        )
