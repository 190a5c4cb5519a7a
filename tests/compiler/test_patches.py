"""What is global in torch and Pyro is afterwards as it was, whatever came between."""

import subprocess
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import drawn, learnable, rotated
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _DIM_ALLOCATOR, _PYRO_STACK

from bayesvae import fit, log_evidence
from bayesvae.compiler import one_thread
from bayesvae.core import trace

Distribution = torch.distributions.Distribution


def test_importing_the_package_leaves_looks_at_arguments_on():
    """zuko turns them off for the whole process."""
    code = "import bayesvae, torch; torch.distributions.Normal(0.0, -1.0)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "ValueError" in ended.stderr


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("of_pyro", [True, False])
def test_looks_at_values_are_what_the_user_had_set(wanted, of_pyro):
    """Also where torch's switch and Pyro's account of it differ."""
    pyro.enable_validation(of_pyro)
    Distribution.set_default_validate_args(wanted)
    try:
        pair, x = learnable(), drawn(rotated(), 20)
        fit(pair, x, epochs=1, progress=False)
        log_evidence(pair, x, 5)
        assert Distribution._validate_args is wanted
        assert pyro.poutine.util.is_validation_enabled() is of_pyro
    finally:
        pyro.enable_validation(True)


class Pressed(KeyboardInterrupt):
    """Ctrl-C."""


@pytest.mark.parametrize("where", ["in a plate", "as a plate is entered", "as it is left"])
def test_an_interruption_within_a_program_leaves_no_plate_behind(where, monkeypatch):
    pair, x = learnable(), drawn(rotated(), 20)
    plate = type(pyro.plate("data", 3))

    def press(*_, **__):
        raise Pressed

    with monkeypatch.context() as patch:
        if where == "in a plate":
            patch.setattr(dist.Normal, "log_prob", press)
            patch.setattr(dist.MultivariateNormal, "log_prob", press)
        elif where == "as a plate is entered":
            enter = Messenger.__enter__
            patch.setattr(
                Messenger, "__enter__", lambda m: press() if isinstance(m, plate) else enter(m)
            )
        else:
            patch.setattr(plate, "__exit__", press)
        with pytest.raises(Pressed):
            fit(pair, x, epochs=1, progress=False)
    assert not any(_DIM_ALLOCATOR._stack)
    assert _PYRO_STACK == []
    assert len(fit(pair, x, epochs=1, progress=False).epochs) == 1


def test_handlers_of_the_users_around_a_program_that_breaks_stay(monkeypatch):
    """Catches a clean-up that takes down what somebody else put up."""
    pair, x = learnable(), drawn(rotated(), 20)
    with pyro.poutine.scale(scale=0.5) as handler:
        monkeypatch.setattr(dist.Normal, "log_prob", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError), one_thread:
            trace.draws(pair.model, x, None)["x"].log_density()
        assert [handler] == _PYRO_STACK
