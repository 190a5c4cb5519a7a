"""Numbers that the type they are read into cannot hold are refused, not rounded away."""

import numpy as np
import pytest
import torch

from bayesvae import data

N = 10
ROWS = np.arange(2.0 * N).reshape(N, 2)
KINDS = np.arange(N) % 3


def stored(folder, array):
    np.save(folder / "x.npy", array)
    return folder / "x.npy"


OFFSETS = {
    "whole": 1_000_000_000 + np.arange(20).reshape(N, 2),
    "real": [[3.0, -1e6 - i / 500] for i in range(N)],
    "one image": 1e9 + np.arange(120.0).reshape(N, 4, 3),
}


@pytest.mark.parametrize("name", OFFSETS)
def test_what_rounding_would_make_constant_is_refused(name, tmp_path):
    path = stored(tmp_path, np.array(OFFSETS[name]))
    data.read(path)
    torch.set_default_dtype(torch.float32)
    with pytest.raises(ValueError, match=r"vary by .* torch.float32 cannot hold. Subtract their"):
        data.read(path)


@pytest.mark.parametrize(
    "column", [np.full(N, 1e9 + 1 / 3), 0.3 + 1e-16 * KINDS, 1_700_000_000 + 10_000 * KINDS]
)
def test_a_constant_or_a_rough_time_is_no_loss(column, tmp_path):
    torch.set_default_dtype(torch.float32)
    x = data.read(stored(tmp_path, np.stack([column, ROWS[:, 0]], 1)), test=0).train
    assert x.double().numpy() == pytest.approx(np.stack([column, ROWS[:, 0]], 1), rel=1e-6)


def test_a_column_that_rounding_would_make_constant_is_named(tmp_path):
    torch.set_default_dtype(torch.float32)
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,1000000001\n2,1000000002\n3,1000000003\n")
    with pytest.raises(ValueError, match=r"size 1e\+09 that vary by 2e-09 of it in column 'b'"):
        data.read(path)


SCALES = {"infinite": np.inf, "not a number": np.nan, "beyond": 1e39, "next to nothing": 1e-40}


@pytest.mark.parametrize("divide", SCALES.values(), ids=SCALES)
def test_a_scale_that_leaves_zeros_or_infinities_is_refused(divide, tmp_path):
    torch.set_default_dtype(torch.float32)
    path = stored(tmp_path, ROWS)
    with pytest.raises(ValueError, match="positive number that float32 holds; got"):
        data.read(path, divide=divide)


@pytest.mark.parametrize("kind", [float, int])
def test_what_division_makes_infinite_is_refused(kind, tmp_path):
    torch.set_default_dtype(torch.float32)
    path = stored(tmp_path, ROWS.astype(kind) * 1000)
    with pytest.raises(ValueError, match="must be finite"):
        data.read(path, divide=1e-37)
