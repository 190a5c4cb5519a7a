"""The data sets are what they say."""

import socket
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_digits

from bayesvae import data


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
def test_the_real_files_have_their_known_sizes_means_and_first_labels(need, name, mean, labels):
    need(name)
    splits = READERS[name]()
    assert splits.train.shape == (60000, 1, 28, 28)
    assert splits.test.shape == (10000, 1, 28, 28)
    assert splits.train.mean().item() == pytest.approx(mean, abs=1e-4)
    assert splits.train_labels[:5].tolist() == labels
    assert splits.test_labels.bincount().min() > 800
    validation = splits.train_labels[-10000:].bincount()
    assert validation.min() > 900, "hold_out would need a shuffled training set"
