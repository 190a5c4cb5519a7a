"""Folders of images become grey levels with classes, or are refused in words."""

import numpy as np
import pytest
import torch
from PIL import Image

from bayesvae import data
from bayesvae.data import image_folders

GREY = np.arange(24, dtype="u1").reshape(4, 6) * 10
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], -1)


def draw(path, pixels=GREY, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path)


def test_subfolders_are_classes_in_alphabetical_order(tmp_path):
    for i, name in enumerate(["dogs/1.png", "cats/b.PNG", "cats/deep/er/a.bmp", "dogs/0.pgm"]):
        draw(tmp_path / name, GREY + i)
    draw(tmp_path / ".hidden" / "0.png")
    (tmp_path / "cats" / "._b.png").write_bytes(b"not an image")
    (tmp_path / "cats" / "notes.txt").write_text("not an image either")
    splits = data.read(tmp_path, test=0)
    assert splits.label_names == ("cats", "dogs")
    assert splits.train_labels.tolist() == [0, 0, 1, 1]
    assert splits.train.shape == (4, 1, 4, 6)
    assert [round(x) for x in (255 * splits.train[:, 0, 0, 0]).tolist()] == [1, 2, 3, 0]
    assert torch.equal(splits.train[3, 0], torch.from_numpy(GREY).double() / 255)


def test_a_flat_folder_has_no_classes(tmp_path):
    for i in range(5):
        draw(tmp_path / f"{i}.png", GREY + i)
    splits = data.read(tmp_path)
    assert (len(splits.train), len(splits.test)) == (4, 1)
    assert (splits.train_labels, splits.test_labels, splits.label_names) == (None, None, ())


@pytest.mark.parametrize("inside", ["", "cats/"])
def test_train_and_test_are_no_classes_but_a_ready_split(inside, tmp_path):
    for i, name in enumerate(["train/0.png", "train/1.png", "test/0.png"]):
        folder, file = name.split("/")
        draw(tmp_path / folder / f"{inside}{file}", GREY + i)
    splits = data.read(tmp_path)
    assert sorted(round(255 * x) for x in splits.train[:, 0, 0, 0].tolist()) == [0, 1]
    assert [round(255 * x) for x in splits.test[:, 0, 0, 0].tolist()] == [2]
    assert splits.label_names == (("cats",) if inside else ())
    assert (splits.test_labels is None) == (inside == "")


MODES = {
    "grey": (GREY, "L", 1),
    "grey stored as colour": (GREY, "RGB", 1),
    "grey palette": (GREY, "P", 1),
    "bits": ((GREY > 100).astype("u1") * 255, "1", 1),
    "grey with alpha": (GREY, "LA", 1),
    "colour": (COLOUR, "RGB", 3),
    "colour with alpha": (COLOUR, "RGBA", 3),
}


@pytest.mark.parametrize("name", MODES)
def test_channels_are_as_many_as_the_images_need_and_in_order(name, tmp_path):
    pixels, mode, channels = MODES[name]
    draw(tmp_path / "0.png", pixels, mode)
    draw(tmp_path / "1.png", pixels, mode)
    expected = torch.from_numpy(pixels).double().reshape(4, 6, channels).movedim(-1, 0) / 255
    assert torch.equal(data.read(tmp_path, test=0).train[1], expected)
    assert data.read(tmp_path, test=0, grey=True).train.shape == (2, 1, 4, 6)


def test_one_image_in_colour_gives_all_three_channels(tmp_path):
    for i, pixels in enumerate([GREY, COLOUR, GREY]):
        draw(tmp_path / f"{i}.png", pixels)
    x = data.read(tmp_path, test=0).train
    assert x.shape == (3, 3, 4, 6)
    assert torch.equal(x[0, 0], x[0, 2])


@pytest.mark.parametrize(("size", "shape"), [(8, (8, 8)), ((2, 3), (2, 3))])
def test_images_are_resized_to_height_and_width(size, shape, tmp_path):
    draw(tmp_path / "0.png", np.full((4, 6), 51, "u1"))
    draw(tmp_path / "1.png", np.full((9, 5), 102, "u1"))
    x = data.read(tmp_path, image_size=size, test=0).train
    assert x.shape == (2, 1, *shape)
    assert x.flatten(1).aminmax(dim=1).max.tolist() == pytest.approx([0.2, 0.4])
    assert x.flatten(1).aminmax(dim=1).min.tolist() == pytest.approx([0.2, 0.4])


@pytest.mark.parametrize(("options", "bytes_of_each"), [({}, 72), ({"image_size": (2, 5)}, 30)])
def test_images_are_counted_before_memory_is_taken(options, bytes_of_each, tmp_path, monkeypatch):
    for i in range(3):
        draw(tmp_path / f"{i}.png", COLOUR)
    monkeypatch.setattr(image_folders, "MOST", 3 * bytes_of_each)
    assert len(data.read(tmp_path, test=0, **options).train) == 3
    monkeypatch.setattr(image_folders, "MOST", 3 * bytes_of_each - 1)
    with pytest.raises(ValueError, match=r"got 3 of 3 x \d x \d bytes"):
        data.read(tmp_path, **options)


def broken(path, kept=60):
    draw(path)
    path.write_bytes(path.read_bytes()[:kept])


REFUSED = {
    "nothing": (lambda f: None, {}, r"holds no images \(.jpg.* nor do its folders"),
    "no images": (lambda f: (f / "a").mkdir(), {}, "holds no images"),
    "both": (lambda f: (draw(f / "0.png"), draw(f / "a/0.png")), {}, "both images and folders"),
    "two sizes": (
        lambda f: (draw(f / "0.png"), draw(f / "1.png", GREY.T)), {},
        r"got 6 x 4 of .*1.png and 4 x 6 of .*0.png .*image_size=\(4, 6\)",
    ),
    "truncated": (lambda f: broken(f / "0.png"), {}, "0.png cannot be read as an image"),
    "no image": (lambda f: broken(f / "0.png", 0), {}, "0.png cannot be read as an image"),
    "truncated jpg": (lambda f: broken(f / "0.jpg", -20), {}, "0.jpg cannot be read as an image"),
    "16 bits": (
        lambda f: draw(f / "0.png", GREY.astype("u2") * 200), {}, "mode I;16: more than 8 bits"
    ),
    "size": (lambda f: draw(f / "0.png"), {"image_size": 0}, "image_size needs .*; got 0"),
    "sizes": (lambda f: draw(f / "0.png"), {"image_size": (1, 2, 3)}, r"got \(1, 2, 3\)"),
    "a size beyond memory": (
        lambda f: (draw(f / "0.png"), draw(f / "1.png")), {"image_size": 100_000, "grey": True},
        r"at most 4 GiB; got 2 of 1 x 100000 x 100000 bytes, 18.6 GiB. Pass a smaller image_size",
    ),
    "columns": (lambda f: draw(f / "0.png"), {"columns": [0]}, "takes image_size, grey"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_set_of_images_is_refused_in_words(name, tmp_path):
    make, options, words = REFUSED[name]
    make(tmp_path)
    with pytest.raises(ValueError, match=words):
        data.read(tmp_path, **options)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"


@pytest.mark.parametrize("suffix", image_folders.SUFFIXES)
def test_a_program_that_is_called_an_image_is_not_run(tmp_path, monkeypatch, suffix):
    """PIL would hand PostScript to Ghostscript, which writes, reads and deletes files."""
    ran = tmp_path / "ran"
    folder, programs = tmp_path / "images", tmp_path / "programs"
    folder.mkdir()
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", str(programs / "gs"))
    (folder / f"picture{suffix}").write_bytes(POSTSCRIPT + b"(gone) deletefile\n%%EOF\n")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        data.read(folder)
    assert not ran.exists()


def test_every_format_that_is_promised_is_read(tmp_path):
    for suffix in image_folders.SUFFIXES:
        draw(tmp_path / suffix / f"a{suffix}")
        draw(tmp_path / suffix / f"b{suffix}")
        assert len(data.read(tmp_path / suffix, test=0).train) == 2


def test_a_folder_of_everything_is_no_folder_of_images(tmp_path, monkeypatch):
    """As ``/`` is, through which one could look for hours."""
    monkeypatch.setattr(image_folders, "OTHERS", 5)
    draw(tmp_path / "a" / "0.png")
    for i in range(10):
        (tmp_path / "a" / f"{i}.txt").write_text("")
    with pytest.raises(ValueError, match="Name the folder that the images are in"):
        data.read(tmp_path)
