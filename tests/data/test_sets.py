"""The data sets are what they say."""

import bz2
import pickle
import socket
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
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


@pytest.mark.parametrize(
    ("rows", "fraction", "held"), [(2, 0.1, 1), (4, 0.1, 1), (4, 0.99, 3), (40, 0.1, 4)]
)
def test_of_few_data_one_is_held_out_and_one_kept(rows, fraction, held):
    train, validation = data.Splits(torch.arange(rows)).hold_out(fraction)
    assert (len(train), len(validation)) == (rows - held, held)


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
    assert splits.label_names[1] == {"MNIST": "1", "FashionMNIST": "Trouser"}[name]


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


@pytest.mark.usefixtures("no_network")
def test_a_set_of_torchvision_goes_by_its_name(tmp_path):
    write_idx(tmp_path / "KMNIST" / "raw")
    for name in ("kmnist", "KMNIST"):
        splits = data.from_torchvision(name, tmp_path)
        assert splits.train.shape == (5, 1, 28, 28)
        assert splits.label_names[:2] == ("o", "ki")
    with pytest.raises(ValueError, match=r"no set 'kminst'; there are mnist, .*, kmnist, .*svhn"):
        data.from_torchvision("kminst", tmp_path)
    assert data.from_torchvision("fashion_mnist", write_fashion(tmp_path)).train.shape[0] == 5


def write_fashion(folder):
    write_idx(folder / "FashionMNIST" / "raw")
    return folder


def test_images_of_emnist_are_turned_upright(tmp_path):
    raw = tmp_path / "EMNIST" / "raw"
    write_idx(raw)
    for file in list(raw.iterdir()):
        part = "train" if file.name.startswith("train") else "test"
        file.rename(raw / f"emnist-letters-{part}-{file.name.split('-', 1)[1]}")
    splits = data.from_torchvision("emnist-letters", tmp_path)
    upright = torch.arange(784).remainder(256).reshape(28, 28).T.float() / 255
    assert torch.equal(splits.train[0, 0], upright)
    assert splits.train.is_contiguous()
    assert splits.label_names[1] == "a"


def test_labels_of_qmnist_are_the_digits_and_not_their_writers(tmp_path):
    write_idx(tmp_path / "raw")
    raw = tmp_path / "QMNIST" / "raw"
    raw.mkdir(parents=True)
    for ours, theirs, size in (("train", "train", 5), ("t10k", "test", 2)):
        images = (tmp_path / "raw" / f"{ours}-images-idx3-ubyte").read_bytes()
        (raw / f"qmnist-{theirs}-images-idx3-ubyte").write_bytes(images)
        labels = np.array([0x0C02, size, 8, *np.arange(size * 8)], ">i4").tobytes()
        (raw / f"qmnist-{theirs}-labels-idx2-int").write_bytes(labels)
    splits = data.from_torchvision("qmnist", tmp_path)
    assert splits.train_labels.tolist() == [0, 8, 16, 24, 32]
    assert splits.test.shape == (2, 1, 28, 28)


def test_usps_is_read_from_its_text(tmp_path):
    for file, size in (("usps.bz2", 3), ("usps.t.bz2", 2)):
        pixels = " ".join(f"{i + 1}:{-1 if i else 1}" for i in range(256))
        lines = "".join(f"{i + 1} {pixels}\n" for i in range(size))
        (tmp_path / file).write_bytes(bz2.compress(lines.encode()))
    splits = data.from_torchvision("usps", tmp_path)
    assert splits.train.shape == (3, 1, 16, 16)
    assert (splits.train[0].sum(), splits.train[0, 0, 0, 0]) == (1, 1)
    assert splits.train_labels.tolist() == [0, 1, 2]
    (tmp_path / "usps.t.bz2").write_bytes(b"BZh91AY&SY")
    with pytest.raises(ValueError, match=r"USPS needs whole files; .*usps.t.bz2 \("):
        data.from_torchvision("usps", tmp_path)


PLANES = np.arange(3 * 32 * 32).reshape(1, 3, 32, 32) % 251


def write_cifar(folder):
    (folder / "cifar-10-batches-py").mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        content = {"data": PLANES.reshape(1, -1).astype("u1"), "labels": [7]}
        (folder / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(content))
    names = pickle.dumps({"label_names": [f"kind {i}" for i in range(10)]})
    (folder / "cifar-10-batches-py" / "batches.meta").write_bytes(names)
    return 5


def write_svhn(folder):
    for part, size in (("train", 3), ("test", 2)):
        x = PLANES.repeat(size, 0).transpose(2, 3, 1, 0).astype("u1")
        scipy.io.savemat(folder / f"{part}_32x32.mat", {"X": x, "y": np.full((size, 1), 10)})
    return 3


@pytest.mark.parametrize(
    ("name", "write", "label"), [("cifar10", write_cifar, 7), ("svhn", write_svhn, 0)]
)
def test_colours_come_channels_first(name, write, label, tmp_path, monkeypatch):
    size = write(tmp_path)
    for module in (torchvision.datasets.cifar, torchvision.datasets.svhn):
        monkeypatch.setattr(module, "check_integrity", lambda *args: True)
    splits = data.from_torchvision(name, tmp_path)
    assert splits.train.shape == (size, 3, 32, 32)
    assert torch.equal(splits.test[:1], torch.from_numpy(PLANES).float() / 255)
    assert splits.train.is_contiguous()
    assert splits.train_labels.tolist() == [label] * size


def test_files_in_the_place_of_cifar_are_not_unpickled_unseen(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.mkdir, (tmp_path / "sprung",)

    write_cifar(tmp_path)
    for file in (tmp_path / "cifar-10-batches-py").iterdir():
        file.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=r"CIFAR10 needs whole files; .*/data_batch_1, "):
        data.from_torchvision("cifar10", tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", data.TORCHVISION)
def test_what_torchvision_cannot_fetch_is_named_file_by_file(name, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError("no route")

    datasets = torchvision.datasets
    for module in (datasets.mnist, datasets.cifar, datasets.svhn, datasets.usps):
        for function in ("download_and_extract_archive", "download_url"):
            if hasattr(module, function):
                monkeypatch.setattr(module, function, refuse)
    with pytest.raises(FileNotFoundError, match=r"needs .*t.* in .*no route.*BAYESVAE_DATA"):
        data.from_torchvision(name, tmp_path)


# Archives ---------------------------------------------------------------------------------------


def write_archive(folder, name, **arrays):
    path = folder / name
    path.parent.mkdir()
    np.savez(path, **arrays)
    return path


def test_frames_of_the_face_are_shuffled_before_the_last_are_set_aside(tmp_path):
    frames = np.broadcast_to(np.arange(250, dtype="u1")[:, None, None], (250, 28, 20))
    write_archive(tmp_path, "frey_faces/frey_faces.npz", images=frames)
    splits = data.frey_faces(tmp_path)
    assert (splits.train.shape, splits.test.shape) == ((50, 1, 28, 20), (200, 1, 28, 20))
    frame = (255 * torch.cat([splits.train, splits.test])[:, 0, 0, 0]).round()
    assert frame.sort().values.tolist() == list(range(250))
    assert frame[:4].tolist() == [225, 122, 92, 157], "splits must be the same for ever"
    assert splits.train_labels is None


def test_characters_are_split_by_who_drew_them_and_keep_their_alphabets(tmp_path):
    position = np.arange(200)
    write_archive(
        tmp_path, "omniglot/omniglot_28x28.npz",
        images=np.broadcast_to(position.astype("u1")[:, None, None], (200, 28, 28)),
        alphabet=(position // 20).astype("u1"),
        drawer=(position % 20).astype("u1"),
        alphabet_names=np.array([f"alphabet {i}" for i in range(10)]),
    )  # fmt: skip
    splits = data.omniglot(tmp_path)
    for x, labels, drawers in (
        (splits.train, splits.train_labels, set(range(15))),
        (splits.test, splits.test_labels, set(range(15, 20))),
    ):
        row = (255 * x[:, 0, 0, 0]).round().long()
        assert {int(drawer) for drawer in row % 20} == drawers
        assert len(row.unique()) == 10 * len(drawers)
        assert labels.tolist() == (row // 20).tolist()
        assert not torch.equal(row, row.sort().values)
    assert splits.label_names[3] == "alphabet 3"


@pytest.mark.parametrize("name", ["frey_faces", "omniglot"])
def test_an_archive_that_is_missing_or_broken_is_named_with_its_source(name, tmp_path):
    reader, file = getattr(data, name), {"frey_faces": "frey_faces", "omniglot": "omniglot_28x28"}
    path = tmp_path / name / f"{file[name]}.npz"
    with pytest.raises(FileNotFoundError, match=f"no {path}. Put it there, .*BAYESVAE_.*https://"):
        reader(tmp_path)
    write_archive(tmp_path, path, something=np.zeros(3))
    for content in (path.read_bytes(), path.read_bytes()[:100], b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path} needs the arrays images"):
            reader(tmp_path)


@pytest.mark.data
def test_the_real_archives_have_their_known_sizes(need):
    need("frey_faces", "omniglot")
    faces, characters = data.frey_faces(), data.omniglot()
    assert (len(faces.train), len(faces.test)) == (1765, 200)
    assert (len(characters.train), len(characters.test)) == (24345, 8115)
    assert characters.train_labels.bincount().min() > 100
    assert len(characters.label_names) == 50
    assert characters.train_labels[-2400:].unique().numel() == 50, "hold_out needs shuffled data"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "mean", "labels"),
    [("MNIST", 0.1307, [5, 0, 4, 1, 9]), ("FashionMNIST", 0.2860, [9, 0, 0, 3, 0])],
)
def test_the_real_files_have_their_known_sizes_means_and_first_labels(need, name, mean, labels):
    need(f"{name}/raw")
    splits = READERS[name]()
    assert splits.train.shape == (60000, 1, 28, 28)
    assert splits.test.shape == (10000, 1, 28, 28)
    assert splits.train.mean().item() == pytest.approx(mean, abs=1e-4)
    assert splits.train_labels[:5].tolist() == labels
    assert splits.test_labels.bincount().min() > 800
    validation = splits.train_labels[-10000:].bincount()
    assert validation.min() > 900, "hold_out would need a shuffled training set"
