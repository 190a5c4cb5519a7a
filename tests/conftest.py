"""Every test runs in float64, from one seed, checked by Pyro, with an empty parameter store.

Most of the time goes into torch's compiler.  What is set here makes it faster and leaves the code
that it makes as it is for everyone.
"""

import gc
import os
from pathlib import Path

# Read when they are imported, by what the tests start as well.
os.environ.setdefault("SYMPY_CACHE_SIZE", "100000")  # of 1000, most is computed again
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # a pool takes seconds to start

import pyro
import pyro.util
import pytest
import torch
from catalog import CATALOG

# A compiler makes millions of objects and few cycles.
gc.freeze()
gc.set_threshold(100_000, 50, 50)


@pytest.fixture(autouse=True)
def _float64_and_seed():
    dtype, stream = torch.get_default_dtype(), pyro.util.get_rng_state()
    torch.set_default_dtype(torch.float64)
    pyro.util.set_rng_seed(0)
    pyro.enable_validation(True)
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()
    pyro.util.set_rng_state(stream)
    torch.set_default_dtype(dtype)


@pytest.fixture
def need():
    """Skips a test whose data are not stored where BAYESVAE_DATA points; downloads nothing."""

    def stored(*folders):
        root = os.environ.get("BAYESVAE_DATA")
        if not root or not all((Path(root) / folder).is_dir() for folder in folders):
            pytest.skip(f"needs BAYESVAE_DATA to name a folder that has {', '.join(folders)}")

    return stored


@pytest.fixture(params=CATALOG)
def build(request):
    """A builder of the catalog; a test that takes it runs over all of them."""
    return CATALOG[request.param]


@pytest.fixture
def case(build):
    """An instance of the catalog; a test that takes it runs over all of them."""
    return build()


@pytest.fixture
def compiler():
    """Asks for compiled code where tests do without (see `descents.without_the_compiler`)."""
