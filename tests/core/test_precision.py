"""Networks in bfloat16: their products alone are rounded, and everything else stays as it is."""

import pyro
import pytest
import torch
from catalog import BATCH, FEATURES
from descents import Toy, adam, data, graph_alone
from pyro.infer import Trace_ELBO
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from bayesvae import CompiledSVI
from bayesvae.core.precision import in_precision, require_networks

ROUNDING = torch.finfo(torch.bfloat16).eps


@pytest.fixture(autouse=True)
def _float32():
    torch.set_default_dtype(torch.float32)


def draws(*shape):
    return torch.randn(*shape)


LAYERS = {
    "linear": lambda: (nn.Linear(40, 30), draws(5, 40)),
    "bilinear": lambda: (lambda x: nn.Bilinear(9, 9, 4)(x, x), draws(5, 9)),
    "conv1d": lambda: (nn.Conv1d(3, 4, 3), draws(2, 3, 9)),
    "conv2d": lambda: (nn.Conv2d(3, 4, 3), draws(2, 3, 9, 9)),
    "conv3d": lambda: (nn.Conv3d(3, 4, 3), draws(2, 3, 5, 5, 5)),
    "conv_transpose1d": lambda: (nn.ConvTranspose1d(3, 4, 3), draws(2, 3, 9)),
    "conv_transpose2d": lambda: (nn.ConvTranspose2d(3, 4, 3), draws(2, 3, 9, 9)),
    "conv_transpose3d": lambda: (nn.ConvTranspose3d(3, 4, 3), draws(2, 3, 5, 5, 5)),
}

OTHERS = {
    "exp": torch.exp,
    "softplus": functional.softplus,
    "sum": torch.sum,
    "layer norm": lambda x: functional.layer_norm(x, x.shape[1:]),
    "a product by hand": lambda x: x @ x.T,
    "log density": lambda x: pyro.distributions.Normal(x, 0.5).log_prob(torch.zeros(())),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layers_product_is_rounded_and_comes_back_in_full(name):
    torch.manual_seed(3)
    layer, x = LAYERS[name]()

    def seeded(x):
        torch.manual_seed(4)
        return layer(x)

    exact, rounded = seeded(x), in_precision(seeded, torch.bfloat16)(x)
    assert rounded.dtype is torch.float32
    error = (rounded - exact).abs().max() / exact.abs().max()
    assert 0 < error < 4 * ROUNDING


@pytest.mark.parametrize("name", OTHERS)
def test_left_in_full_precision(name):
    x = draws(6, 7)
    assert torch.equal(in_precision(OTHERS[name], torch.bfloat16)(x), OTHERS[name](x))


def test_gradients_are_close_and_in_full_precision():
    layer, x = nn.Linear(200, 100), draws(64, 200)
    gradients = []
    for networks in (None, torch.bfloat16):
        layer.zero_grad()
        in_precision(lambda: layer(x).square().mean(), networks)().backward()
        gradients.append(layer.weight.grad.clone())
    exact, rounded = gradients
    assert rounded.dtype is torch.float32
    assert 0 < (rounded - exact).norm() / exact.norm() < 2 * ROUNDING


def test_products_of_float64_are_not_rounded():
    layer, x = nn.Linear(3, 3).double(), draws(2, 3).double()
    assert torch.equal(in_precision(layer, torch.bfloat16)(x), layer(x))


def test_without_a_precision_the_function_is_handed_back():
    layer = nn.Linear(3, 3)
    assert in_precision(layer, None) is layer


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, "bfloat16", torch.int8])
def test_other_precisions_are_refused(dtype):
    with pytest.raises(ValueError, match=f"networks takes torch.bfloat16.*got {dtype}"):
        require_networks(dtype)


# In training ---------------------------------------------------------------------------------


def value(programs, networks, x):
    parts = programs.model, programs.guide, adam(programs), Trace_ELBO()
    torch.manual_seed(4)
    return CompiledSVI(*parts, compile=False, networks=networks).evaluate_loss(x)


def test_a_loss_differs_by_the_rounding_of_its_networks():
    programs, x = Toy(), torch.randn(500, FEATURES)
    exact, rounded = (value(programs, networks, x) for networks in (None, torch.bfloat16))
    assert 0 < abs(rounded - exact) < ROUNDING * abs(exact)


def test_nothing_is_rounded_outside_of_a_step():
    programs, x = Toy(), data()
    before = programs.encoder(x)
    value(programs, torch.bfloat16, x)
    assert torch.equal(programs.encoder(x), before)


class Watched(Toy):
    """Notes the types that its distributions get."""

    def likelihood(self, z):
        made = super().likelihood(z)
        self.seen = z.dtype, made.mean.dtype
        return made


def trained(networks, compile, steps=6):
    """A short descent, and the pair that it moved."""
    torch.manual_seed(3)
    programs = Watched()
    optim = adam(programs)
    parts = programs.model, programs.guide, optim, Trace_ELBO()
    svi = CompiledSVI(*parts, compile=compile, networks=networks)
    torch.manual_seed(5)
    losses = [svi.step(torch.randn(BATCH, FEATURES)) for _ in range(steps)]
    assert svi.is_compiled is compile
    assert programs.seen == (torch.float32, torch.float32)
    kept = [v for state in optim.state.values() for v in state.values()]
    assert {t.dtype for t in (*programs.parameters(), *kept)} == {torch.float32}
    return losses, [p.detach().clone() for p in programs.parameters()]


def require_like_as_written():
    losses, parameters = trained(torch.bfloat16, compile=False)
    fast, fast_parameters = trained(torch.bfloat16, compile=True)
    exact, _ = trained(None, compile=False)
    assert_close(fast, losses, rtol=ROUNDING, atol=0.0)
    assert_close(fast_parameters, parameters, rtol=0.0, atol=1e-2)
    assert losses != exact


def test_recorded_steps_round_as_steps_as_written_do(monkeypatch):
    graph_alone(monkeypatch)
    require_like_as_written()


@pytest.mark.slow
def test_compiled_steps_round_as_steps_as_written_do():
    require_like_as_written()


def test_a_float64_pair_is_left_alone():
    torch.set_default_dtype(torch.float64)
    programs, x = Toy(), data()
    assert value(programs, None, x) == value(programs, torch.bfloat16, x)
