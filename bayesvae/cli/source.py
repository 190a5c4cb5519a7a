"""The data of a run: where they come from, what they are, and how they are served.

The kind of the data (bits, grey levels, whole or real numbers) is told from their values; it
settles what was left open, and is said aloud.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse import Namespace
from torch import Tensor

from bayesvae import data
from bayesvae.cli.facts import Facts, fingerprint_of
from bayesvae.cli.mistakes import nearest
from bayesvae.cli.settle import settle

ROWS = 10_000
"""At most so many rows of a file that stays on disk are read for evaluation."""


class DataSet(NamedTuple):
    """A data set by name.

    Attributes:
        read: of a folder of data sets, or None for where they are kept, and whether the network
            may be asked: its splits.
        summary: it in words.
    """

    read: Callable[[str | None, bool], data.Splits]
    summary: str


def _made(make: Callable[[], data.Synthetic]) -> Callable[[str | None, bool], data.Splits]:
    return lambda root, download: make().splits


def _kept(read: Callable[[str | None], data.Splits]) -> Callable[[str | None, bool], data.Splits]:
    return lambda root, download: read(root)


def _torchvision(name: str) -> Callable[[str | None, bool], data.Splits]:
    return lambda root, download: data.from_torchvision(name, root, download=download)


_TORCHVISION = {
    "kmnist": "70,000 characters of old Japanese cursive, 28 x 28",
    "qmnist": "120,000 digits of 28 x 28, MNIST made anew",
    "emnist-balanced": "131,600 letters and digits, 28 x 28, 47 classes",
    "emnist-byclass": "814,255 letters and digits, 28 x 28, 62 classes",
    "emnist-bymerge": "the same, with like capitals and small letters as one, 47 classes",
    "emnist-digits": "280,000 digits of 28 x 28",
    "emnist-letters": "145,600 letters of 28 x 28, 26 classes",
    "usps": "9,298 digits of 16 x 16",
    "cifar10": "60,000 photographs of 32 x 32 in colour, 10 classes",
    "cifar100": "60,000 photographs of 32 x 32 in colour, 100 classes",
    "svhn": "99,289 house numbers of 32 x 32 in colour",
}

DATA_SETS: Mapping[str, DataSet] = {
    "digits": DataSet(lambda *_: data.digits(), "1,797 digits of 8 x 8; no download"),
    "mnist": DataSet(_torchvision("mnist"), "70,000 digits of 28 x 28"),
    "fashion-mnist": DataSet(_torchvision("fashion-mnist"), "70,000 pictures of clothes, 28 x 28"),
    **{name: DataSet(_torchvision(name), _TORCHVISION[name]) for name in data.TORCHVISION},
    "frey-faces": DataSet(_kept(data.frey_faces), "1,965 frames of one face, 28 x 20"),
    "omniglot": DataSet(_kept(data.omniglot), "32,460 characters of 50 alphabets, 28 x 28"),
    "curve": DataSet(_made(data.curve), "made: a bent line in the plane, with noise"),
    "mixture": DataSet(_made(data.mixture), "made: a mixture of normals"),
    "ppca": DataSet(_made(data.ppca), "made: linear-Gaussian latents"),
    "shapes": DataSet(_made(data.shapes), "made: drawn shapes with known factors"),
}


class Labelled(NamedTuple):
    """Data as evaluated.

    Attributes:
        x: ``(n, *event)``.
        labels: their classes ``(n,)``, None if there are none.
    """

    x: Tensor
    labels: Tensor | None

    def first(self, count: int | None) -> tuple[Tensor, Tensor]:
        """The first of them with their positions, for guides that look them up."""
        x = self.x[:count]
        return x, torch.arange(len(x))


class Prepared(NamedTuple):
    """The data of a run.

    Attributes:
        train: to train on, ``(N, *event)``, in memory or on disk.
        transform: what each batch goes through, None for nothing.
        seen: training data as evaluated (binarised once), not all of them if they stay on disk.
        validation: held out of the training data, as evaluated.
        test: unseen, as evaluated.
        facts: what is known of them.
    """

    train: Tensor | data.Mapped
    transform: Callable[[Tensor], Tensor] | None
    seen: Labelled
    validation: Tensor | None
    test: Labelled | None
    facts: Facts

    def loader(self, batch_size: int) -> data.Loader:
        """Shuffled batches to train on."""
        return data.Loader(self.train, batch_size, shuffle=True, transform=self.transform)


def prepare(config: Namespace, say: Callable[[str], None], known: Facts | None = None) -> Prepared:
    """Reads and splits the data that a configuration names, and settles what it leaves open.

    Args:
        config: the options of ``bayesvae fit``; what was open in it is filled in.
        say: told what was found and chosen.
        known: what is known of the data already, if a run is prepared again; the network is then
            left alone, for a run may be somebody else's.

    Raises:
        ValueError: if the data are not sound, are not those of the run, or the options do not fit
            them.
        OSError: if they cannot be read.
    """
    splits = _splits(config, download=known is None)
    settle(config, splits, say)
    train, validation = splits.train, None
    if config.validation > 0:
        train, validation = splits.hold_out(config.validation)
    facts = _facts(config, splits, train) if known is None else known
    if facts.scale is not None:
        say(f"  nats of standardised data; in the data's own units {facts.log_units:+.2f} a datum")
    if (facts.event, facts.size) != (tuple(train.shape[1:]), len(train)):
        raise ValueError(
            f"A run needs the data that it was trained on, {facts.size} of shape {facts.event}; "
            f"{config.data} gives {len(train)} of {tuple(train.shape[1:])}. Point --data at them."
        )
    if facts.fingerprint and facts.fingerprint != fingerprint_of(train):
        print(
            f"bayesvae: {config.data} has other data than the run was trained on, or the same in "
            "another order; its shape alone is the same.",
            file=sys.stderr,
        )
    seen, held, unseen = (
        None if part is None else as_evaluated(in_memory(part), config, facts, offset)
        for offset, part in enumerate((train, validation, splits.test))
    )
    return Prepared(
        *_served(config, facts, train, seen),
        Labelled(seen, _first(splits.train_labels, len(seen))),
        held,
        None if unseen is None else Labelled(unseen, _first(splits.test_labels, len(unseen))),
        facts,
    )


def others(
    options: Namespace, config: Namespace, facts: Facts, say: Callable[[str], None]
) -> Labelled:
    """Other data than a run's, treated as the run treats its own.

    Args:
        options: those of the command; of a file that stays on disk, the first ``limit`` data.
        config: those that the run was trained with.
        facts: what the run knows of its data.
        say: told what was found.

    Raises:
        ValueError: if the data are not of the run's shape.
        OSError: if they cannot be read.
    """
    if options.data in DATA_SETS:
        refuse_reading(options, f"the data set {options.data}")
        splits = DATA_SETS[options.data].read(options.data_root, True)
        x, labels = splits.test, splits.test_labels
    else:
        path = _path(options.data)
        table = path.suffix.lower() in (".csv", ".tsv", ".txt")
        columns = options.columns or (list(facts.names) if table and facts.names else None)
        x, labels = data.read_rows(path, **_reading(options, columns=columns))
    if tuple(x.shape[1:]) != facts.event:
        raise ValueError(
            f"--data needs data of the run's shape {facts.event}; {options.data} has "
            f"{tuple(x.shape[1:])}. Choose --columns or --image-size, or other data."
        )
    found = in_memory(x, options.get("limit") or ROWS)
    part = "" if len(found) == len(x) else f", the first {len(found):,} of them (--limit for more)"
    say(f"{options.data}: {len(x):,} data{part}; {data.describe(x).text}")
    return Labelled(as_evaluated(found, config, facts, 3), _first(labels, len(found)))


def converted(x: Tensor, config: Namespace, facts: Facts) -> Tensor:
    """Data ``(B, *event)`` as the pair sees them but for bits: rounded to levels, standardised."""
    if config.levels is not None:
        return (x * (config.levels - 1)).round()
    return facts.standardised(x)


def as_evaluated(x: Tensor, config: Namespace, facts: Facts, offset: int) -> Tensor:
    """Data as the pair sees them, binarised once so that every evaluation sees the same bits."""
    x = converted(x, config, facts)
    if config.binarise == "none":
        return x
    return data.static_binarisation(x, config.seed + offset)


def in_memory(x: Tensor | data.Mapped, limit: int = ROWS) -> Tensor:
    """Data, or the first of those that stay on disk."""
    return x if isinstance(x, Tensor) else x[:limit].read()


def _served(
    config: Namespace, facts: Facts, train: Tensor | data.Mapped, seen: Tensor
) -> tuple[Tensor | data.Mapped, Callable[[Tensor], Tensor] | None]:
    """The data to train on, and what each batch goes through."""
    dynamic = config.binarise == "dynamic"
    if isinstance(train, Tensor):
        if dynamic:
            return converted(train, config, facts), data.dynamic_binarisation
        return seen, None
    if config.binarise == "static":
        raise ValueError(
            f"--binarise static needs data that fit into memory; {config.data} stays on disk. Use "
            "--binarise dynamic."
        )

    def transform(x: Tensor) -> Tensor:
        x = converted(x, config, facts)
        return data.dynamic_binarisation(x) if dynamic else x

    return train, transform


_READING = ("array", "columns", "labels", "image_size", "grey", "divide")
"""Options that say how a file is read."""


def refuse_reading(options: Namespace, of: str) -> None:
    """Refuses options that say how a file is read where none is.

    Raises:
        ValueError: if there are any.
    """
    if given := [f"--{name.replace('_', '-')}" for name in _READING if options[name]]:
        raise ValueError(f"{', '.join(given)} tells how to read a file; got {of}. Leave it out.")


def _splits(config: Namespace, download: bool) -> data.Splits:
    if config.data in DATA_SETS:
        refuse_reading(config, f"the data set {config.data}")
        return DATA_SETS[config.data].read(config.data_root, download)
    path = _path(config.data)
    config.data = str(path.resolve())
    return data.read(path, test=config.test, **_reading(config, columns=config.columns))


def _path(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.exists():
        raise ValueError(
            f"--data takes one of {', '.join(DATA_SETS)}, or the path of a file or image folder; "
            f"there is none at {name}.{nearest(name, DATA_SETS)} `bayesvae list data` tells more."
        )
    return path


def _reading(options: Namespace, columns: list[str] | None) -> dict[str, Any]:
    size = options.image_size
    if size is not None and len(size) > 2:
        raise ValueError(f"--image-size takes one or two numbers; got {size}.")
    return {
        "array": options.array,
        "columns": columns,
        "labels": options.labels,
        "image_size": None if size is None else (size[0], size[-1]),
        "grey": options.grey,
        "divide": options.divide,
    }


def _facts(config: Namespace, splits: data.Splits, train: Tensor | data.Mapped) -> Facts:
    x, loc, scale = in_memory(train), None, None
    if config.standardise:
        deviation = x.std(0)
        loc = x.mean(0).flatten().tolist()
        scale = torch.where(deviation > 0, deviation, 1.0).flatten().tolist()
    names = (splits.names, splits.label_names)
    facts = Facts(config.data, tuple(x.shape[1:]), len(train), 0, 0, 0, loc, scale, *names)
    low, high = (end.item() for end in torch.aminmax(converted(x, config, facts)))
    whole = config.levels or int(high) + 1
    return facts._replace(low=low, high=high, levels=whole, fingerprint=fingerprint_of(train))


def _first(labels: Tensor | None, count: int) -> Tensor | None:
    return None if labels is None else labels[:count]
