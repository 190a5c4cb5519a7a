"""Images from a folder: of classes, a folder each, or flat.

As in torchvision, the names of the subfolders are the classes, in alphabetical order, and images
are looked for in all of their depth. Subfolders ``train`` and ``test`` are a ready split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from bayesvae.data.raw import Raw

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""What is read, whatever a file is called: PIL would hand others to programs that run what they
say, as PostScript to Ghostscript."""
MANY = 2000
MOST = 2**32
OTHERS = 20_000
"""So many files that are no images make a folder none of images; the whole disk is one."""

Size = int | tuple[int, int]


def read_folder(path: Path, image_size: Size | None = None, grey: bool = False) -> Raw:
    """Return all images of a folder as bytes ``(N, C, H, W)``, C = 1 if all of them are grey.

    Raises:
        ValueError: If there are none, one is broken or of another size, or all of them would take
            more than `MOST` bytes.
    """
    size = _height_and_width(image_size)
    parts = [path / "train", path / "test"]
    parts = parts if all(part.is_dir() for part in parts) else [path]
    found = [_classified(part) for part in parts]
    names = sorted({name for _, marks in found for name in marks})
    files = [file for part, _ in found for file in part]
    images = _images(files, size, grey)
    labels = np.array([names.index(name) for _, marks in found for name in marks])
    count = len(found[0][0])
    x = Raw(images[:count], label_names=tuple(names))
    if names:
        x = x._replace(labels=labels[:count])
    if len(found) == 2:
        x = x._replace(test=images[count:], test_labels=labels[count:] if names else None)
    return x


def _height_and_width(size: Size | None) -> tuple[int, int] | None:
    pair = (size, size) if isinstance(size, int) else size
    if pair is not None and (len(pair) != 2 or min(pair) < 1):
        raise ValueError(f"image_size needs one number or (height, width), positive; got {size}.")
    return pair


def _classified(folder: Path) -> tuple[list[Path], list[str]]:
    """Images, and the class of each; no classes of a flat folder."""
    flat = _pictures(folder.iterdir())
    inside = {
        each.name: _pictures(each.rglob("*"))
        for each in sorted(folder.iterdir())
        if each.is_dir() and not each.name.startswith(".")
    }
    inside = {name: files for name, files in inside.items() if files}
    if flat and inside:
        raise ValueError(
            f"{folder} holds both images and folders of images, so that it is not clear what the "
            f"classes are. Move {flat[0].name} and its like away."
        )
    if not flat and not inside:
        raise ValueError(f"{folder} holds no images ({', '.join(SUFFIXES)}), nor do its folders.")
    files = flat or [file for group in inside.values() for file in group]
    return files, [name for name, group in inside.items() for _ in group]


def _pictures(files: Iterable[Path]) -> list[Path]:
    found, others = [], 0
    for file in files:
        if file.suffix.lower() in SUFFIXES and not file.name.startswith("."):
            found.append(file)
        else:
            others += 1
        if others > OTHERS + len(found):
            raise ValueError(
                f"A folder of images holds images; {file.parent} and those beside it hold more "
                f"than {OTHERS:,} other files. Name the folder that the images are in."
            )
    return sorted(file for file in found if file.is_file())


def _images(files: list[Path], size: tuple[int, int] | None, grey: bool) -> np.ndarray:
    _check_memory(files, size or _size_of(files[0]), grey)
    first = _image(files[0], size, grey)
    images, colour = np.empty((len(files), *first.shape), np.uint8), False
    for i, file in enumerate(tqdm(files, "images", disable=len(files) < MANY)):
        image = _image(file, size, grey)
        if image.shape != first.shape:
            (height, width), (tall, wide) = image.shape[1:], first.shape[1:]
            raise ValueError(
                f"Images need one size; got {height} x {width} of {file} and {tall} x {wide} of "
                f"{files[0]} (height x width). Resize them with image_size=({tall}, {wide})."
            )
        images[i] = image
        colour = colour or bool((image != image[:1]).any())
    return images if colour else images[:, :1]


def _check_memory(files: list[Path], size: tuple[int, int], grey: bool) -> None:
    channels, (height, width) = 1 if grey else 3, size
    needed = len(files) * channels * height * width
    if needed > MOST:
        raise ValueError(
            f"Images of a folder are held in memory, at most {MOST / 2**30:.3g} GiB; got "
            f"{len(files)} of {channels} x {height} x {width} bytes, {needed / 2**30:,.3g} GiB. "
            f"Pass a smaller image_size=..., or save them as bytes in a .npy file, which stays on "
            f"disk."
        )


def _size_of(file: Path) -> tuple[int, int]:
    """Height and width, by the header alone."""
    with _opened(file) as image:
        return image.height, image.width


def _image(file: Path, size: tuple[int, int] | None, grey: bool) -> np.ndarray:
    with _opened(file) as image:
        if image.mode[0] in "IF":
            raise ValueError(f"of mode {image.mode}: more than 8 bits a channel")
        # Palettes may hold transparency that goes only by way of RGBA.
        flat = image.convert("RGBA") if image.mode in ("P", "PA") else image
        flat = flat.convert("L" if grey else "RGB")
        if size is not None:
            flat = flat.resize(size[::-1], Image.Resampling.BILINEAR)
        pixels = np.asarray(flat)
    return pixels[None] if grey else np.moveaxis(pixels, -1, 0)


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """The image; one error for all that PIL throws, where each format has its own."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{file} cannot be read as an image of 8 bits a channel ({error}). Remove or replace "
            f"it."
        ) from error
