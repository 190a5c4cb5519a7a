"""NumPyro: `SVI.update` under `jax.jit`, and a `lax.fori_loop` of such steps inside one call.

The loop takes another batch and other random numbers at every step, and adds its losses up, so
that nothing in it can be left out.
"""

from collections.abc import Callable
from functools import partial
from itertools import count

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, lax, random
from numpyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO

from benchmarks.speed.cases import Arrays, Case
from benchmarks.speed.worker import Gate

Program = Callable[[Array, Array], None]


def positive(raw: Array) -> Array:
    """Scales."""
    return jax.nn.softplus(raw) + 1e-6


def network(weights: Arrays, name: str, x: Array) -> Array:
    """One hidden layer of rectified units, its weights stated as parameters."""
    first, bias, second, shift = (
        numpyro.param(f"{name}.{part}", weights[f"{name}.{part}"])
        for part in ("0.weight", "0.bias", "1.weight", "1.bias")
    )
    return jax.nn.relu(x @ first.T + bias) @ second.T + shift


def prior(case: Case, weights: Arrays) -> dist.Distribution:
    """p(z)."""
    if case.prior == "standard":
        return dist.Normal(jnp.zeros(case.latent), 1.0).to_event(1)
    if case.prior == "mixture":
        logits = numpyro.param("prior.logits", weights["prior.logits"])
        rows = numpyro.param("prior.rows", weights["prior.rows"])
    else:
        raw = numpyro.param("prior.raw_inputs", weights["prior.raw_inputs"])
        rows = network(weights, "encoder", jax.nn.sigmoid(raw))
        logits = jnp.zeros(case.components)
    loc, scale = rows[:, : case.latent], positive(rows[:, case.latent :])
    components = dist.Normal(loc, scale).to_event(1)
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), components)


def programs(case: Case, weights: Arrays) -> tuple[Program, Program]:
    """Model and guide of a batch ``(B, D)`` and its positions ``(B,)``."""

    def model(x: Array, index: Array) -> None:
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", prior(case, weights))
            logits = network(weights, "decoder", z)
            numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x: Array, index: Array) -> None:
        if case.table:
            rows = numpyro.param("table", weights["table"])[index]
        else:
            rows = network(weights, "encoder", x)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", posterior(case, rows))

    return model, guide


def posterior(case: Case, rows: Array) -> dist.Distribution:
    """q(z | x) from rows ``(B, rows)``."""
    d = case.latent
    loc, scale = rows[:, :d], positive(rows[:, d : 2 * d])
    if not case.full:
        return dist.Normal(loc, scale).to_event(1)
    row, column = np.tril_indices(d, -1)
    unit = jnp.broadcast_to(jnp.eye(d), (len(rows), d, d))
    unit = unit.at[:, row, column].set(rows[:, 2 * d :])
    return dist.MultivariateNormal(loc, scale_tril=scale[:, :, None] * unit)


def make_svi(case: Case, weights: Arrays) -> SVI:
    """NumPyro's own SVI of a case, with its own Adam."""
    kind = TraceMeanField_ELBO if case.analytic_kl else Trace_ELBO
    model, guide = programs(case, weights)
    return SVI(model, guide, numpyro.optim.Adam(1e-3), kind(num_particles=case.particles))


class JaxSteps:
    """Runs steps over batches in memory, one call a step or one call for all of them."""

    def __init__(self, svi: SVI, x: np.ndarray, index: np.ndarray, loop: bool) -> None:
        self.svi, self.loop, self.count = svi, loop, count()
        self.x, self.index = jnp.asarray(x), jnp.asarray(index)
        self.batches = list(zip(jnp.asarray(x), jnp.asarray(index), strict=True))
        self.state = svi.init(random.key(0), *self.batches[0])
        self.update = jax.jit(svi.update, donate_argnums=0)
        self.many = jax.jit(partial(_many, svi), donate_argnums=0)
        self.taken = 0

    def run(self, steps: int) -> None:
        """Takes so many steps."""
        if self.loop:
            self.state, loss = self.many(self.state, self.x, self.index, self.taken, steps)
            self.taken += steps
        else:
            for _ in range(steps):
                batch = self.batches[next(self.count) % len(self.batches)]
                self.state, loss = self.update(self.state, *batch)
        if not np.isfinite(float(loss)):
            raise FloatingPointError(f"A contestant must train; its loss became {loss}.")
        jax.block_until_ready(self.state)

    def weights(self) -> Arrays:
        """The parameters by name."""
        return arrays(self.svi, self.state)


def arrays(svi: SVI, state: tuple) -> Arrays:
    """The parameters by name, copied for NumPy."""
    return {k: np.array(v) for k, v in svi.get_params(state).items()}


def _many(
    svi: SVI, state: tuple, x: Array, index: Array, first: int, steps: int
) -> tuple[tuple, Array]:
    def body(step: int, carried: tuple) -> tuple:
        at = (first + step) % len(x)
        state, loss = svi.update(carried[0], x[at], index[at])
        return state, carried[1] + loss

    return lax.fori_loop(0, steps, body, (state, jnp.zeros(())))


def make(
    case: Case, weights: Arrays, x: np.ndarray, index: np.ndarray, loop: bool = False
) -> JaxSteps:
    """The contestant, set up."""
    return JaxSteps(make_svi(case, weights), x, index, loop)


def epochs(case: Case, weights: Arrays, levels: np.ndarray, gate: Gate) -> None:
    """Epochs, each one call: shuffled, binarised and trained inside; while the gate opens."""
    grey = jnp.asarray(levels, jnp.float32) / 255
    svi, key = make_svi(case, weights), random.key(1)
    state = svi.init(random.key(0), grey[: case.batch], jnp.arange(case.batch))
    epoch = jax.jit(partial(_epoch, svi, case.batch), donate_argnums=0)
    while True:
        gate.next(partial(arrays, svi, state))
        key, now = random.split(key)
        state = jax.block_until_ready(epoch(state, grey, now))


def _epoch(svi: SVI, batch: int, state: tuple, grey: Array, key: Array) -> tuple:
    shuffled, drawn = random.split(key)
    order = random.permutation(shuffled, len(grey))
    whole, rest = divmod(len(grey), batch)

    def step(state: tuple, number: Array | int, rows: Array) -> tuple:
        x = random.bernoulli(random.fold_in(drawn, number), grey[rows])
        return svi.update(state, x.astype(jnp.float32), rows)[0]

    def body(number: int, state: tuple) -> tuple:
        return step(state, number, lax.dynamic_slice(order, (number * batch,), (batch,)))

    state = lax.fori_loop(0, whole, body, state)
    return step(state, whole, order[-rest:]) if rest else state
