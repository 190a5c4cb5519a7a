"""One set of data in a comparison: every bound and every gap, datum by datum."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from bayesvae.core.estimates import Estimate
from bayesvae.evidence import Bracket
from bayesvae.optima import Posteriors

_NOTHING: Mapping = MappingProxyType({})


class Gap(NamedTuple):
    """A paired difference of two bounds.

    Attributes:
        kind: its name, such as "amortization gap".
        family: of which family, or "guide".
        values: ``(N,)``, nats.
    """

    kind: str
    family: str
    values: Tensor


class Split(NamedTuple):
    """One set of data; every estimate is per datum, in the order of the data, nats.

    Attributes:
        guide: L[q_phi], the guide's own bound.
        importance: log p(x) by importance sampling from the pooled proposal, a lower bound in
            expectation.
        bounds: L[q*] by family.
        movement: by family, what the last window of the ascent still gained (mean over data).
        own: the guide's own family among ``bounds``; None if it is none of them.
        semi: L[q_semi] by k, after k gradient steps from the guide in its own family.
        annealed: log p(x) by annealing, if it was asked for: from below, and from chains run back
            from where long ones had ended, which is no bound.
        posteriors: every q; None where no family was fitted.
    """

    guide: Estimate
    importance: Estimate
    bounds: Mapping[str, Estimate] = _NOTHING
    movement: Mapping[str, float] = _NOTHING
    own: str | None = None
    semi: Mapping[int, Estimate] = _NOTHING
    annealed: Bracket | None = None
    posteriors: Posteriors | None = None

    @property
    def log_evidence(self) -> Estimate:
        """The log p(x) that all gaps are taken from: annealed if that was asked for, else sampled.

        It is one estimator for all data.  The larger of two noisy lower bounds, datum by datum,
        would be no lower bound.
        """
        return self.importance if self.annealed is None else self.annealed.lower

    @property
    def amortization_gap(self) -> Tensor | None:
        """L[q*] - L[q_phi] in the guide's own family, ``(N,)``; None if it has none."""
        return None if self.own is None else self.improvement(self.own)

    @property
    def approximation_gap(self) -> Tensor | None:
        """log p(x) - L[q*] of the guide's own family, ``(N,)``; None if it has none."""
        return None if self.own is None else self.shortfall(self.own)

    @property
    def inference_gap(self) -> Tensor:
        """log p(x) - L[q_phi] = KL(q_phi || p(z | x)), ``(N,)``."""
        return self.log_evidence.value - self.guide.value

    def shortfall(self, family: str) -> Tensor:
        """The approximation gap of a family, log p(x) - L[q*], ``(N,)``."""
        return self.log_evidence.value - self.bounds[family].value

    def improvement(self, family: str) -> Tensor:
        """L[q*] of a family minus the guide's bound, ``(N,)``."""
        return self.bounds[family].value - self.guide.value

    def gained(self, steps: int) -> Tensor:
        """L[q_semi] - L[q_phi]: what so many steps close of the amortization gap, ``(N,)``."""
        return self.semi[steps].value - self.guide.value

    def left(self, steps: int) -> Tensor:
        """L[q*] - L[q_semi]: what so many steps leave of the amortization gap, ``(N,)``."""
        return self.bounds[self.own].value - self.semi[steps].value

    def gaps(self) -> Iterator[Gap]:
        """Every gap."""
        if self.own is not None:
            yield Gap("amortization gap", self.own, self.amortization_gap)
        for k in self.semi:
            yield Gap(f"closed by {_steps(k)}", self.own, self.gained(k))
            yield Gap(f"left by {_steps(k)}", self.own, self.left(k))
        for family in self.bounds:
            yield Gap("approximation gap", family, self.shortfall(family))
        for family in self.bounds:
            if family != self.own:
                yield Gap("improvement over the guide", family, self.improvement(family))
        yield Gap("log p(x) - L[q_phi]", "guide", self.inference_gap)

    def single(self) -> dict[str, Estimate]:
        """The estimates of which there is one, by a name of one word."""
        named = {"log_evidence": self.log_evidence}
        if self.annealed is not None:
            named |= {"importance": self.importance, "reverse": self.annealed.upper}
        return named | {"guide_elbo": self.guide}

    def bounds_by_name(self) -> dict[str, Estimate]:
        """Every estimate by a name of one word."""
        named = self.single()
        named |= {f"semi_{k}": bound for k, bound in self.semi.items()}
        return named | {f"optimum_{family}": bound for family, bound in self.bounds.items()}

    def columns(self) -> dict[str, Tensor]:
        """Every estimate with its error, and the importance weights' health, ``(N,)`` each."""
        found = {}
        for name, estimate in self.bounds_by_name().items():
            found |= {name: estimate.value, f"{name}_stderr": estimate.stderr}
        found["effective_sample_size"] = self.importance.effective_sample_size
        if self.importance.k_hat is not None:
            found["k_hat"] = self.importance.k_hat
        return found


def _steps(k: int) -> str:
    return f"{k} step{'' if k == 1 else 's'}"
