"""The data sets are what they say, and every batch knows where its data came from."""

import os
import socket
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_digits
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from bayesvae import data

N = 10
# Each datum carries its position in its values.
X = torch.arange(N, dtype=torch.float64).reshape(N, 1, 1, 1).expand(N, 1, 2, 2).contiguous()


class Labelled(Dataset):
    """Items are (image, label), and the labels are such as no tensor can hold."""

    def __init__(self, size=N):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        return X[i], None


class Stream(IterableDataset):
    def __len__(self):
        return N

    def __iter__(self):
        yield from X


class Pictures(Labelled):
    def __getitem__(self, i):
        return torchvision.transforms.ToPILImage()(X[i].float()), i


def stacked_images(items):
    return [torch.stack([x for x, _ in items]), "labels"]


def read_only_array():
    array = X.numpy().copy()
    array.flags.writeable = False
    return array


SOURCES = {
    "tensor": lambda: X,
    "array": lambda: X.numpy(),
    "read-only array": read_only_array,
    "Loader": lambda: data.Loader(X, 3, shuffle=True),
    "TensorDataset": lambda: TensorDataset(X, torch.zeros(N)),
    "Dataset with labels": Labelled,
    "Subset": lambda: Subset(TensorDataset(torch.cat([X - N, X])), range(N, 2 * N)),
    "DataLoader": lambda: DataLoader(Labelled(), batch_size=3),
    "DataLoader, shuffled": lambda: DataLoader(Labelled(), batch_size=3, shuffle=True),
    "DataLoader of TensorDataset": lambda: DataLoader(TensorDataset(X), 3, shuffle=True),
    "DataLoader, collating": lambda: DataLoader(Labelled(), 3, True, collate_fn=stacked_images),
    "DataLoader, batch sampler": lambda: DataLoader(
        Labelled(), batch_sampler=BatchSampler(range(N - 1, -1, -1), 3, drop_last=False)
    ),
    "DataLoader, plain list of batches": lambda: DataLoader(
        Labelled(), batch_sampler=[[9, 8, 7, 6], [0, 1, 2], [5, 4], [3]]
    ),
    "DataLoader, worker": lambda: DataLoader(Labelled(), 3, True, num_workers=1),
}


@pytest.fixture(params=SOURCES)
def source(request):
    return SOURCES[request.param]()


forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@forks
def test_positions_are_true_and_complete_whatever_shuffles_labels_or_collates(source):
    batches = data.loader(source, batch_size=3, shuffle=True)
    for _ in range(2):
        epoch = list(batches)
        x, index = (torch.cat(parts) for parts in zip(*epoch, strict=True))
        assert len(batches) == len(epoch) == 4
        assert batches.size == N
        assert index.dtype == torch.int64
        torch.testing.assert_close(x, X[index], rtol=0, atol=0)
        assert index.sort().values.tolist() == list(range(N))


@forks
def test_sequential_forgets_the_shuffling_and_obeys_the_batch_size(source):
    batches = data.sequential(data.loader(source, shuffle=True), batch_size=4)
    assert [index.tolist() for _, index in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert (len(batches), batches.size, batches.batch_size) == (3, N, 4)
    assert all(torch.equal(x, X[index]) for x, index in batches)


@forks
@pytest.mark.parametrize(("limit", "expected"), [(None, N), (1, 1), (7, 7), (99, N)])
def test_rows_stops_at_the_limit_across_batches(source, limit, expected):
    x, index = data.rows(source, limit)
    assert index.tolist() == list(range(expected))
    assert torch.equal(x, X[:expected])


def test_loader_does_not_wrap_a_loader_again(source):
    once = data.loader(source)
    assert data.loader(once, batch_size=7) is once


def test_shuffling_draws_a_fresh_order_for_each_epoch_from_the_global_stream():
    torch.manual_seed(0)
    batches = data.Loader(X, batch_size=N, shuffle=True)
    (first, second) = (next(iter(batches))[1].tolist() for _ in range(2))
    assert first != second
    torch.manual_seed(0)
    assert next(iter(batches))[1].tolist() == first


def test_a_shuffled_data_loader_keeps_the_stream_of_its_generator():
    def shuffled():
        generator = torch.Generator().manual_seed(3)
        return DataLoader(Labelled(), 3, True, generator=generator, collate_fn=stacked_images)

    plain, ours = shuffled(), data.loader(shuffled())
    for _ in range(2):
        pairs = zip(plain, ours, strict=True)
        assert all(torch.equal(expected, x) for (expected, _), (x, _) in pairs)


def test_slices_are_views_so_that_no_epoch_copies_the_data():
    for x, index in data.Loader(X, batch_size=4):
        assert x.data_ptr() == X[index[0]].data_ptr()
    assert data.rows(X, 5)[0].data_ptr() == X.data_ptr()
    for source in (X.numpy(), TensorDataset(X, X)):
        assert data.loader(source).x.data_ptr() == X.data_ptr()


def test_drop_last_drops_in_training_and_never_in_evaluation():
    batches = data.Loader(X, batch_size=4, drop_last=True)
    assert [len(x) for x, _ in batches] == [4, 4]
    assert (len(batches), batches.size) == (2, N)
    assert [len(x) for x, _ in data.sequential(batches)] == [4, 4, 2]
    assert len(data.sequential(DataLoader(Labelled(), 4, drop_last=True))) == 3


def test_sequential_leaves_the_loader_it_was_given_alone():
    batches = data.Loader(X, batch_size=4, shuffle=True, drop_last=True)
    data.sequential(batches, batch_size=2)
    assert (batches.batch_size, batches.shuffle, batches.drop_last) == (4, True, True)


def test_sequential_does_not_evaluate_data_that_a_subset_sampler_left_out():
    batches = DataLoader(Labelled(), 2, sampler=SubsetRandomSampler([7, 1, 4]))
    assert [index.tolist() for _, index in data.sequential(batches)] == [[1, 4], [7]]
    assert data.loader(batches).size == N
    assert data.rows(batches)[1].tolist() == [1, 4, 7]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64, torch.float16])
def test_the_dtype_is_left_alone(dtype):
    assert data.rows(X.to(dtype))[0].dtype == dtype
    assert data.rows(X.to(dtype).numpy())[0].dtype == dtype


def test_dynamic_draws_are_fresh_in_each_epoch_with_the_grey_level_as_mean():
    torch.manual_seed(0)
    grey = torch.linspace(0, 1, 11, dtype=torch.float64).expand(50, 11)
    batches = data.Loader(grey, batch_size=16, transform=torch.bernoulli)
    epochs = torch.stack([torch.cat([x for x, _ in batches]) for _ in range(100)])
    assert not torch.equal(epochs[0], epochs[1])
    assert set(epochs.unique().tolist()) == {0.0, 1.0}
    error = epochs.mean((0, 1)) - grey[0]
    stderr = (grey[0] * (1 - grey[0]) / 5000).sqrt()
    assert (error.abs() <= 4.5 * stderr).all()
    assert set(data.rows(batches)[0].unique().tolist()) == {0.0, 1.0}


def test_static_draws_depend_on_the_seed_alone_and_spare_the_global_stream():
    grey = torch.linspace(0, 1, 4000, dtype=torch.float64)
    state = torch.get_rng_state()
    x = data.static_binarisation(grey)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(data.static_binarisation(grey), x)
    assert not torch.equal(data.static_binarisation(grey, seed=1), x)
    assert x.dtype == grey.dtype
    stderr = (grey * (1 - grey)).sum().sqrt()
    assert (x - grey).sum().abs() <= 4.5 * stderr


@pytest.mark.parametrize(
    "binarise",
    [
        data.static_binarisation,
        lambda x: data.Loader(x, transform=torch.bernoulli),
    ],
)
@pytest.mark.parametrize(
    ("x", "received"),
    [
        (255 * X, "from 0.0 to 2295.0"),
        (X[:2] - 0.5, "from -0.5 to 0.5"),
        (X[:2].byte(), "torch.uint8 from 0 to 1"),
    ],
)
def test_binarising_anything_but_grey_levels_is_refused_before_training(binarise, x, received):
    with pytest.raises(ValueError, match=rf"grey levels in \[0, 1\]; got .*{received}.*x / 255"):
        binarise(x)


def test_binarising_not_a_number_is_refused():
    with pytest.raises(ValueError, match="grey levels"):
        data.static_binarisation(torch.tensor([0.5, torch.nan]))


MISUSES = {
    "no data": (lambda: data.loader(X[:0]), ValueError, "got N = 0"),
    "no event": (lambda: data.loader(torch.zeros(3, 0)), ValueError, "got N = 0"),
    "no dimension": (lambda: data.loader(torch.tensor(1.0)), ValueError, "got N = 0"),
    "empty Dataset": (lambda: data.loader(Labelled(0), 4, True), ValueError, "got N = 0"),
    "batch size": (lambda: data.loader(X, 0), ValueError, "batch_size = 0"),
    "batch size of a Dataset": (lambda: data.loader(Labelled(), 0), ValueError, "batch_size = 0"),
    "sequential": (lambda: data.sequential(data.Loader(X), 0), ValueError, "batch_size = 0"),
    "no whole batch": (
        lambda: data.Loader(X, 11, drop_last=True), ValueError, "batch_size <= N; got N = 10"
    ),
    "no whole batch of a DataLoader": (
        lambda: data.loader(DataLoader(Labelled(), 11, drop_last=True)), ValueError, "<= N"
    ),
    "no limit": (lambda: data.rows(X, 0), ValueError, "limit >= 1; got 0"),
    "NaN": (lambda: data.loader(X / X), ValueError, "finite data; got 4 values.*impute"),
    "infinity": (lambda: data.loader(np.log(X.numpy()[:1] + 1) - np.inf), ValueError, "finite"),
    "not a tensor": (lambda: data.Loader(X.numpy()), TypeError, r"got ndarray. Use loader"),
    "iterable-style": (lambda: data.loader(Stream()), TypeError, "got Stream. Gather"),
    "iterable-style DataLoader": (
        lambda: data.loader(DataLoader(Stream())), TypeError, "got Stream. Gather"
    ),
    "generator": (lambda: data.loader(x for x in X), TypeError, "got generator"),
    "Splits": (lambda: data.loader(data.digits()), TypeError, "got Splits.*splits.train"),
    "pictures": (
        lambda: next(iter(data.loader(Pictures()))), TypeError, r"got Image. .*ToTensor\(\)"
    ),
    "DataLoader of pictures": (
        lambda: data.rows(DataLoader(Pictures())), TypeError, r"got Image. .*ToTensor\(\)"
    ),
    "DataLoader without batches": (
        lambda: data.loader(DataLoader(Labelled(), batch_size=None)), ValueError, "batch_size=None"
    ),
    "fraction too small": (lambda: data.digits().hold_out(1e-9), ValueError, "got 1e-09 of 1437"),
    "fraction too large": (lambda: data.digits().hold_out(1.0), ValueError, "got 1.0 of 1437"),
    "negative fraction": (lambda: data.digits().hold_out(-0.1), ValueError, "got -0.1"),
}  # fmt: skip


@pytest.mark.parametrize("misuse", MISUSES)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_misuse_is_answered_in_words_that_say_what_came(misuse):
    call, error, words = MISUSES[misuse]
    with pytest.raises(error, match=words):
        call()


def test_the_split_of_the_digits_is_the_same_for_ever():
    splits = data.digits()
    assert splits.train.shape == (1437, 1, 8, 8)
    assert splits.test.shape == (360, 1, 8, 8)
    assert splits.test_labels.bincount().tolist() == [31, 35, 39, 33, 44, 29, 40, 40, 28, 41]
    assert splits.test_labels[:8].tolist() == [7, 9, 4, 7, 0, 2, 6, 1]
    assert (splits.test.double().sum() * 16).item() == 112332
    assert splits.train.dtype == torch.float32
    assert (splits.train.min(), splits.train.max()) == (0, 1)


def test_the_split_of_the_digits_neither_loses_nor_repeats_an_image_or_its_label():
    splits, bunch = data.digits(), load_digits()
    x = 16 * torch.cat([splits.train, splits.test]).flatten(1)
    labels = torch.cat([splits.train_labels, splits.test_labels])
    ours = sorted(
        (*image, label) for image, label in zip(x.tolist(), labels.tolist(), strict=True)
    )
    theirs = zip(bunch.data.tolist(), bunch.target.tolist(), strict=True)
    assert ours == sorted((*image, label) for image, label in theirs)


def test_hold_out_takes_the_last_rows_and_copies_nothing():
    splits = data.digits()
    train, validation = splits.hold_out(0.25)
    assert torch.equal(torch.cat([train, validation]), splits.train)
    assert len(validation) == 359
    assert train.data_ptr() == splits.train.data_ptr()


def write_idx(raw, images=5):
    """Write the four files of a small data set in the format of MNIST; pixels count up."""
    raw.mkdir(parents=True, exist_ok=True)
    for part, size in (("train", images), ("t10k", 2)):
        header = np.array([0x0803, size, 28, 28], ">i4").tobytes()
        pixels = (np.arange(size * 784) % 256).astype("u1").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels)
        header, labels = np.array([0x0801, size], ">i4").tobytes(), bytes(range(size))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + labels)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(url, *args, **kwargs):
        raise URLError(f"no route to {url}")

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", refuse)


READERS = {"MNIST": data.mnist, "FashionMNIST": data.fashion_mnist}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.usefixtures("no_network")
def test_idx_files_become_images_in_unit_range_without_a_download(name, tmp_path):
    write_idx(tmp_path / name / "raw")
    splits = READERS[name](tmp_path)
    assert splits.train.shape == (5, 1, 28, 28)
    assert splits.test.shape == (2, 1, 28, 28)
    expected = torch.arange(784).remainder(256).float() / 255
    assert torch.equal(splits.train[0].flatten(), expected)
    assert (splits.train_labels.tolist(), splits.test_labels.tolist()) == ([0, 1, 2, 3, 4], [0, 1])


@pytest.mark.usefixtures("no_network")
def test_the_root_is_the_argument_then_the_environment_then_the_cache(tmp_path, monkeypatch):
    roots = [tmp_path / "argument", tmp_path / "environment", tmp_path / ".cache" / "bayesvae"]
    for size, root in enumerate(roots, start=2):
        write_idx(root / "MNIST" / "raw", images=size)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BAYESVAE_DATA", str(roots[1]))
    assert len(data.mnist(roots[0]).train) == 2
    assert len(data.mnist().train) == 3
    monkeypatch.delenv("BAYESVAE_DATA")
    assert len(data.mnist().train) == 4


@pytest.mark.parametrize("name", READERS)
@pytest.mark.usefixtures("no_network")
def test_without_files_and_network_one_line_says_which_files_go_where(name, tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        READERS[name](tmp_path)
    message = str(raised.value)
    assert "\n" not in message
    assert str(tmp_path / name / "raw") in message
    for word in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "BAYESVAE_DATA",
                 "--data-root", "no route to"):  # fmt: skip
        assert word in message


@pytest.mark.parametrize("error", [URLError("down"), TimeoutError(), PermissionError("locked")])
def test_every_way_a_download_fails_is_reported_alike(error, tmp_path, monkeypatch):
    def refuse(self):
        raise error

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", refuse)
    with pytest.raises(FileNotFoundError, match="MNIST needs train-images-idx3-ubyte") as raised:
        data.mnist(tmp_path)
    assert raised.value.__cause__ is error
    assert (str(error) or "TimeoutError") in str(raised.value)


@pytest.mark.usefixtures("no_network")
def test_a_root_that_cannot_be_written_to_is_reported_as_missing_files(tmp_path):
    (tmp_path / "file").write_text("in the way of a folder")
    with pytest.raises(FileNotFoundError, match="MNIST needs"):
        data.mnist(tmp_path / "file")


def test_a_silent_mirror_meets_a_short_timeout_which_is_undone(tmp_path, monkeypatch):
    seen, before = [], socket.getdefaulttimeout()

    def deliver(url, download_root, **kwargs):
        seen.append(socket.getdefaulttimeout())
        write_idx(Path(download_root))

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", deliver)
    socket.setdefaulttimeout(1000.0)
    try:
        assert len(data.mnist(tmp_path).train) == 5
        assert socket.getdefaulttimeout() == 1000.0
    finally:
        socket.setdefaulttimeout(before)
    assert len(seen) == 4
    assert max(seen) <= 10


@pytest.mark.parametrize("kept", [0, 3, 10, 16, 400])
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte"])
@pytest.mark.usefixtures("no_network")
def test_a_truncated_file_is_named_instead_of_served(file, kept, tmp_path):
    write_idx(tmp_path / "MNIST" / "raw")
    path = tmp_path / "MNIST" / "raw" / file
    path.write_bytes(path.read_bytes()[:kept])
    part = str(tmp_path / "MNIST" / "raw" / file.split("-")[0])
    with pytest.raises(ValueError, match="truncated or corrupt") as raised:
        data.mnist(tmp_path)
    assert part in str(raised.value)


@pytest.mark.usefixtures("no_network")
def test_images_and_labels_of_unequal_number_are_not_paired(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    write_idx(raw)
    labels = (raw / "train-labels-idx1-ubyte").read_bytes()
    write_idx(raw, images=6)
    (raw / "train-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(ValueError, match="6 images but 5 labels"):
        data.mnist(tmp_path)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "mean", "labels"),
    [("MNIST", 0.1307, [5, 0, 4, 1, 9]), ("FashionMNIST", 0.2860, [9, 0, 0, 3, 0])],
)
def test_the_real_files_have_their_known_sizes_means_and_first_labels(name, mean, labels):
    root = os.environ.get("BAYESVAE_DATA")
    if not root or not (Path(root) / name / "raw").is_dir():
        pytest.skip(f"needs BAYESVAE_DATA to name a folder that has {name}/raw")
    splits = READERS[name]()
    assert splits.train.shape == (60000, 1, 28, 28)
    assert splits.test.shape == (10000, 1, 28, 28)
    assert splits.train.mean().item() == pytest.approx(mean, abs=1e-4)
    assert splits.train_labels[:5].tolist() == labels
    assert splits.test_labels.bincount().min() > 800
    validation = splits.train_labels[-10000:].bincount()
    assert validation.min() > 900, "hold_out would need a shuffled training set"
