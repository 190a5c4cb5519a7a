"""Data on disk are served like data in memory, a batch at a time."""

import mmap
import subprocess
import sys

import numpy as np
import pytest
import torch
from linear_gaussian import rotated

from bayesvae import data, fit, log_evidence
from bayesvae.data import Mapped
from bayesvae.pairs import ppca

N = 12
# Each datum carries its position in its values.
ROWS = np.arange(N)[:, None] + np.zeros((1, 5))


def on_disk(folder, array=ROWS, name="x.npy"):
    np.save(folder / name, array)
    return np.load(folder / name, mmap_mode="r")


@pytest.fixture
def array(tmp_path):
    return on_disk(tmp_path)


@pytest.fixture
def x(array):
    return Mapped(array)


VIEWS = {
    "all": (lambda x: x, list(range(N))),
    "slice": (lambda x: x[2:9], list(range(2, 9))),
    "slice from the end": (lambda x: x[:-3], list(range(N - 3))),
    "slice of a slice": (lambda x: x[2:9][1:-1], list(range(3, 8))),
    "every third": (lambda x: x[1::3], [1, 4, 7, 10]),
    "backwards": (lambda x: x[::-1], list(range(N - 1, -1, -1))),
    "chosen rows": (lambda x: Mapped(x._array, torch.tensor([7, 0, -1])), [7, 0, 11]),
    "chosen rows, sliced": (lambda x: Mapped(x._array, torch.tensor([7, 0, 3]))[1:], [0, 3]),
    "nothing": (lambda x: x[5:5], []),
}


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_serves_its_own_rows_and_no_neighbours(name, x):
    view, rows = VIEWS[name][0](x), VIEWS[name][1]
    expected = torch.from_numpy(ROWS[rows])
    assert isinstance(view, Mapped)
    assert (len(view), view.shape, view.ndim) == (len(rows), expected.shape, 2)
    assert torch.equal(view.read(), expected)
    assert all(torch.equal(view[i], expected[i]) for i in range(-len(rows), len(rows)))
    index = torch.arange(len(rows)).flip(0)[::2]
    assert torch.equal(view[index], expected[index])
    if rows:
        assert torch.equal(view[torch.tensor([-1, 0])], expected[[-1, 0]])


def test_hold_out_keeps_data_on_disk(x):
    train, validation = data.Splits(x).hold_out(0.25)
    assert isinstance(train, Mapped)
    assert torch.equal(torch.cat([train.read(), validation.read()]), x.read())
    assert len(validation) == 3


@pytest.mark.parametrize("kind", ["?", "u1", ">u2", "<i8", ">f4", "f2", "f8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_numbers_become_the_default_type_whatever_their_byte_order(kind, dtype, tmp_path):
    torch.set_default_dtype(dtype)
    array = on_disk(tmp_path, np.eye(3).astype(kind))
    for served in (Mapped(array).read(), Mapped(array)[1:][0], data.rows(array)[0]):
        assert served.dtype == dtype
    assert torch.equal(Mapped(array).read(), torch.eye(3))


def test_views_of_other_shapes_stay_on_disk_and_bytes_are_divided(tmp_path):
    array = on_disk(tmp_path, np.arange(48, dtype="u1").reshape(2, 4, 2, 3))
    x = Mapped(np.moveaxis(array, -1, 1), divide=255)
    expected = torch.arange(48.0).reshape(2, 4, 2, 3).movedim(-1, 1) / 255
    torch.testing.assert_close(x.read(), expected, rtol=1e-15, atol=0)
    assert x.read().is_contiguous()
    assert repr(x) == "Mapped of shape (2, 3, 4, 2), uint8 / 255"


# Loaders ----------------------------------------------------------------------------------------

SOURCES = {
    "array": lambda array: array,
    "view of the array": lambda array: np.asarray(array)[:],
    "Mapped": Mapped,
    "with positions": lambda array: (Mapped(array), torch.arange(N)),
    "Loader": lambda array: data.Loader(Mapped(array), 5, shuffle=True),
}


@pytest.fixture(params=SOURCES)
def source(request, array):
    return SOURCES[request.param](array)


def test_loaders_of_files_name_the_positions_of_what_they_serve(source):
    batches = data.loader(source, 5, shuffle=True)
    assert isinstance(batches.x, Mapped)
    x, index = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert torch.equal(x, torch.from_numpy(ROWS)[index])
    assert index.tolist() != list(range(N))
    assert index.sort().values.tolist() == list(range(N))
    assert [i.tolist() for _, i in data.sequential(source, 8)] == [[*range(8)], [*range(8, N)]]
    assert data.rows(source, 3)[0][:, 0].tolist() == [0, 1, 2]


def test_a_file_and_its_content_in_memory_train_to_the_same_numbers(x):
    trained = []
    for served in (x, x.read()):
        torch.manual_seed(0)
        pair = ppca(rotated())
        fit(pair, served, steps=5, batch_size=4, progress=False)
        torch.manual_seed(0)
        trained.append(log_evidence(pair, served, particles=20).value)
    assert torch.equal(*trained)


def test_the_file_is_not_looked_through_before_its_rows_are_asked_for(tmp_path):
    broken = ROWS.copy()
    broken[10] = np.nan
    array = on_disk(tmp_path, broken)
    assert len(data.rows(array, 8)[0]) == 8
    batches = iter(data.loader(array, 5))
    assert [next(batches)[1].tolist() for _ in range(2)] == [[*range(5)], [*range(5, 10)]]
    with pytest.raises(ValueError, match="row 10 of the array"):
        next(batches)


def test_levels_beyond_one_are_refused_when_the_batch_that_has_them_is_served(tmp_path):
    grey = np.zeros((N, 5))
    grey[10] = 2
    batches = iter(data.Loader(Mapped(on_disk(tmp_path, grey)), 5, transform=torch.bernoulli))
    assert [next(batches)[0].max() for _ in range(2)] == [0, 0]
    with pytest.raises(ValueError, match=r"from 0.0 to 2.0. Divide .*Mapped\(x, divide=255\)"):
        next(batches)


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[4:], lambda x: x[::-1]])
def test_what_is_not_finite_is_named_by_its_row_in_the_file(view, tmp_path):
    broken = ROWS.copy()
    broken[6, 1], broken[9] = np.inf, np.nan
    x = view(Mapped(on_disk(tmp_path, broken)))
    with pytest.raises(ValueError, match=r"float64; got .* row 6 of the array and in 1 more of "):
        x.read()
    assert not torch.equal(x[0], x[1])


def test_numbers_too_large_for_the_default_type_are_not_served_as_infinite(tmp_path):
    torch.set_default_dtype(torch.float32)
    x = Mapped(on_disk(tmp_path, np.full((2, 1), 1e300)))
    with pytest.raises(ValueError, match=r"finite in torch.float32"):
        x.read()


def test_grey_levels_on_disk_are_binarised_afresh_in_each_epoch(tmp_path):
    x = Mapped(on_disk(tmp_path, np.full((200, 5), 51, "u1")), divide=255)
    batches = data.Loader(x, 64, transform=torch.bernoulli)
    epochs = torch.stack([torch.cat([x for x, _ in batches]) for _ in range(20)])
    assert set(epochs.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(epochs[0], epochs[1])
    assert abs(epochs.mean().item() - 0.2) < 5 * (0.2 * 0.8 / epochs.numel()) ** 0.5


def bad_rows(rows):
    return lambda x: Mapped(x._array, rows)


MISUSES = {
    "list": (lambda x: Mapped([[1.0]]), TypeError, r"got list. Open a .npy .*mmap_mode"),
    "words": (lambda x: Mapped(np.array(["a"])), TypeError, "got <U1"),
    "one number": (lambda x: Mapped(np.array(1.0)), ValueError, "got a single number"),
    "division by zero": (lambda x: Mapped(x._array, divide=0), ValueError, "positive.*got 0"),
    "rows beyond": (bad_rows(torch.tensor([0, N])), IndexError, f"0 to 11; got .* 0 to {N}"),
    "mask": (bad_rows(torch.ones(N) > 0), TypeError, "int64.*got torch.bool of 1 dim"),
    "floats": (lambda x: x[torch.ones(2)], TypeError, "int64.*got torch.float64"),
    "two indices": (lambda x: x[1, 2], TypeError, "int64.*got .*tuple"),
    "table of positions": (lambda x: x[torch.zeros(2, 2).long()], TypeError, "int64"),
    "beyond": (lambda x: x[N], IndexError, "range"),
    "far before": (lambda x: x[-N - 1], IndexError, "range"),
    "positions beyond": (lambda x: x[torch.tensor([N])], IndexError, "0 to 11; got .* 12 to 12"),
    "empty": (lambda x: data.loader(x[:0]), ValueError, "got N = 0"),
    "static": (lambda x: data.static_binarisation(x), TypeError, "got Mapped.*transform=torch.b"),
}  # fmt: skip


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_answered_in_words(misuse, x):
    call, error, words = MISUSES[misuse]
    with pytest.raises(error, match=words):
        call(x)


def test_reading_ahead_is_left_to_runs_of_rows(x):
    class Map:
        def madvise(self, advice):
            self.advice = advice

    x._map = Map()
    for read, advice in (
        (lambda: x[torch.tensor([3, 1])], mmap.MADV_RANDOM),
        (lambda: x[torch.tensor([3, 4])], mmap.MADV_NORMAL),
        (lambda: x[7], mmap.MADV_RANDOM),
        (lambda: x[2:9].read(), mmap.MADV_NORMAL),
    ):
        read()
        assert x._map.advice == advice


# Memory -----------------------------------------------------------------------------------------

TRAIN = """
import itertools, resource, sys
import numpy as np
import torch
from bayesvae import data, fit, log_evidence
from bayesvae.pairs import PPCA, ppca

x = np.load(sys.argv[1], mmap_mode="r")
pair = ppca(PPCA(torch.eye(1024)[:, :2].clone(), torch.zeros(1024), 1.0))
fit(pair, torch.randn(64, 1024), steps=2, progress=False)
status = open("/proc/self/status").read()
used = 1024 * int(status.split("VmData:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, (used + 2**29, resource.RLIM_INFINITY))
for batch, index in itertools.islice(data.loader(x, 128, shuffle=True), 50):
    assert batch.shape == (128, 1024) and index.max() > 128
fit(pair, x, steps=20, progress=False)
log_evidence(pair, data.Mapped(x)[:200], particles=10)
WHOLE
"""


def sparse_file(path, rows):
    """A float32 array of zeros that takes no room on disk: a header, and a hole."""
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, 1024)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + rows * 4096)


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_DATA as Linux counts it")
@pytest.mark.parametrize("whole", ["", "np.array(x)"], ids=["by batches", "whole"])
def test_sixteen_gigabytes_train_in_a_half(whole, tmp_path):
    sparse_file(tmp_path / "x.npy", 2**22)
    program = TRAIN.replace("WHOLE", whole)
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "x.npy"], capture_output=True, text=True
    )
    # Without the second case the first would prove nothing: the limit has to bite.
    assert (run.returncode == 0) != bool(whole), run.stderr
    assert ("MemoryError" in run.stderr) == bool(whole), run.stderr
