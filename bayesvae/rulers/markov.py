"""Hidden Markov models: discrete states in a chain, each emitting one observation.

    k_1 ~ w,   k_t | k_{t-1} ~ A[k_{t-1}],   x_t | k_t ~ p(x | k_t),   t = 1 ... T

The future's likelihood f_t(k) = log p(x_t, ..., x_T | k_t = k) obeys, in log space,

    f_T(k) = log p(x_T | k),   f_t(k) = log p(x_t | k) + log sum_j A[k, j] exp f_{t+1}(j),

which gives log p(x) = log sum_k w_k exp f_1(k).  Given x the states are a Markov chain again, with
probabilities that change from step to step,

    p(k_1 | x) ~ w_k exp f_1(k),   p(k_t = j | k_{t-1} = k, x) ~ A[k, j] exp f_t(j),

whose forward recursion gives the marginals p(k_t | x).  "A Tutorial on Hidden Markov Models"
(Rabiner, 1989).
"""

from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from bayesvae.core.programs import DATA_PLATE
from bayesvae.rulers.components import log_likelihoods
from bayesvae.rulers.ruler import Ruler

_ONE = torch.Size()


def _rows(logits: Tensor, states: Tensor) -> Tensor:
    """The rows of ``(*, S, S)`` that states ``(*)`` choose, ``(*, S)``."""
    return torch.take_along_dim(logits, states[..., None, None], -2).squeeze(-2)


class MarkovChain(TorchDistribution):
    """A path of T discrete states.

    Args:
        initial_logits: of the first state, up to a constant, ``(*, S)``.
        transition_logits: of each next state, given the one before, ``(*, T - 1, S, S)``.
        validate_args: whether arguments and values are checked.

    Example:
        >>> chain = MarkovChain(torch.zeros(2), torch.zeros(4, 2, 2))
        >>> chain.sample((3,)).shape, chain.log_prob(torch.zeros(5, dtype=torch.long)).exp()
        (torch.Size([3, 5]), tensor(0.0312))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "initial_logits": constraints.independent(constraints.real, 1),
        "transition_logits": constraints.independent(constraints.real, 3),
    }

    def __init__(
        self,
        initial_logits: Tensor,
        transition_logits: Tensor,
        validate_args: bool | None = None,
    ) -> None:
        batch = torch.broadcast_shapes(initial_logits.shape[:-1], transition_logits.shape[:-3])
        self.initial_logits = initial_logits.log_softmax(-1).expand(*batch, -1)
        self.transition_logits = transition_logits.log_softmax(-1).expand(*batch, -1, -1, -1)
        steps = transition_logits.shape[-3] + 1
        super().__init__(batch, torch.Size([steps]), validate_args=validate_args)

    def expand(
        self, batch_shape: torch.Size, _instance: "MarkovChain | None" = None
    ) -> "MarkovChain":
        """The same chain with a larger batch shape."""
        new = self._get_checked_instance(MarkovChain, _instance)
        new.initial_logits = self.initial_logits.expand(*batch_shape, -1)
        new.transition_logits = self.transition_logits.expand(*batch_shape, -1, -1, -1)
        super(MarkovChain, new).__init__(
            torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        """Paths of whole numbers 0 ... S - 1."""
        last = self.initial_logits.shape[-1] - 1
        return constraints.independent(constraints.integer_interval(0, last), 1)

    def sample(self, sample_shape: torch.Size = _ONE) -> Tensor:
        """Paths ``(*sample_shape, *batch_shape, T)``."""
        wide = self.expand(torch.Size(sample_shape) + self.batch_shape)
        path = [dist.Categorical(logits=wide.initial_logits).sample()]
        for logits in wide.transition_logits.unbind(-3):
            path.append(dist.Categorical(logits=_rows(logits, path[-1])).sample())
        return torch.stack(path, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log-probabilities, nats, of paths ``(*, T)``."""
        if self._validate_args:
            self._validate_sample(value)
        path = value.long()
        wide = self.expand(torch.broadcast_shapes(path.shape[:-1], self.batch_shape))
        path = path.expand(*wide.batch_shape, -1)
        first = wide.initial_logits.gather(-1, path[..., :1]).squeeze(-1)
        chosen = _rows(wide.transition_logits, path[..., :-1])
        return first + chosen.gather(-1, path[..., 1:, None]).squeeze(-1).sum(-1)

    @property
    def marginals(self) -> dist.Categorical:
        """Each state by itself: p(k_t), batch shape ``(*, T)``."""
        state = [self.initial_logits]
        for logits in self.transition_logits.unbind(-3):
            state.append((state[-1].unsqueeze(-1) + logits).logsumexp(-2))
        return dist.Categorical(logits=torch.stack(state, -2))


class HiddenMarkov(Ruler):
    """A hidden Markov model of sequences; the local latent ``k`` is the path of the states.

    Args:
        initial_logits: log w up to a constant, ``(S,)``.
        transition_logits: log A up to a constant a row, ``(S, S)``, the old state first.
        components: module whose call with states k ``(*)`` is p(x_t | k): `NormalComponents`,
            `CategoricalComponents`, or your own.

    Raises:
        ValueError: for other shapes.

    Example:
        >>> from bayesvae.rulers import CategoricalComponents
        >>> emission = CategoricalComponents(torch.tensor([[3.0, 0], [0, 3]]))
        >>> ruler = HiddenMarkov(torch.zeros(2), 2 * torch.eye(2), emission)
        >>> ruler.marginals(torch.tensor([[0, 0, 1, 1]])).probs.argmax(-1)
        tensor([[0, 0, 1, 1]])
    """

    site = "k"

    def __init__(
        self, initial_logits: Tensor, transition_logits: Tensor, components: nn.Module
    ) -> None:
        super().__init__()
        states = initial_logits.shape[-1:]
        if initial_logits.dim() != 1 or transition_logits.shape != states + states:
            raise ValueError(
                "HiddenMarkov needs initial_logits (S,) and transition_logits (S, S); got "
                f"{tuple(initial_logits.shape)} and {tuple(transition_logits.shape)}. Give each "
                "state a row of logits of the state that follows."
            )
        self.initial_logits = nn.Parameter(initial_logits.clone())
        self.transition_logits = nn.Parameter(transition_logits.clone())
        self.components = components

    def prior(self, steps: int) -> MarkovChain:
        """p(k_1, ..., k_T) for T steps."""
        transitions = self.transition_logits.expand(steps - 1, -1, -1)
        return MarkovChain(self.initial_logits, transitions)

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Runs the program on sequences ``(B, T, *event)``; returns x, drawn if asked to."""
        with pyro.plate(DATA_PLATE, len(x)):
            k = pyro.sample("k", self.prior(x.shape[1]))
            return pyro.sample("x", self.components(k).to_event(1), obs=x)

    def _futures(self, x: Tensor) -> Tensor:
        """f_t(k) = log p(x_t, ..., x_T | k_t = k), ``(B, T, S)``."""
        emitted = log_likelihoods(self.components, len(self.initial_logits), x)
        transition = self.transition_logits.log_softmax(-1)
        *earlier, future = emitted.unbind(1)
        futures = [future]
        for now in reversed(earlier):
            future = now + (transition + futures[-1].unsqueeze(-2)).logsumexp(-1)
            futures.append(future)
        return torch.stack(futures[::-1], 1)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x) exactly, ``(B,)`` nats, for sequences ``(B, T, *event)``."""
        return (self.initial_logits.log_softmax(-1) + self._futures(x)[:, 0]).logsumexp(-1)

    def posterior(self, x: Tensor, index: Tensor | None = None) -> MarkovChain:
        """p(k_1, ..., k_T | x) exactly, batch shape ``(B,)``."""
        futures = self._futures(x)
        transitions = self.transition_logits + futures[:, 1:].unsqueeze(-2)
        return MarkovChain(self.initial_logits + futures[:, 0], transitions)

    def marginals(self, x: Tensor) -> dist.Categorical:
        """p(k_t | x_1, ..., x_T) exactly, the smoothed states, batch shape ``(B, T)``."""
        return self.posterior(x).marginals
