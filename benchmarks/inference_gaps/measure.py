"""Training of a set-up and measurement of its gaps, each kept in files as soon as it is done.

A folder a set-up holds ``state.pt`` (the trained pair), ``bounds.pt``, ``annealed.pt`` and
``elbo.pt`` (numbers an image) and ``facts.json``.  What is there is not done again; each part
starts from the seed, so that a run that was interrupted draws what an uninterrupted one would
have drawn.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR

from bayesvae import Annealing, Pair, annealed_evidence, compare, data, fit, objectives
from bayesvae.core.files import load_state, save_json, save_state
from bayesvae.data import Splits
from bayesvae.evidence import elbo_per_datum
from bayesvae.gaps.split_results import Split
from bayesvae.optima import Ascent
from benchmarks.inference_gaps.setups import SETUPS, Setup, make_pair


class Settings(NamedTuple):
    """What holds for all set-ups of a run.

    Attributes:
        epochs: passes over the training images.
        warmup: share of the steps over which the KL weight grows from 0 to 1.
        training: how many training images; all if None.
        latent: d.
        images: so many of the training and of the unseen images have their gaps measured.
        particles: draws for each bound.
        evidence_particles: draws for log p(x) by importance sampling.
        temperatures: of the annealing.
        pilot: of its pilot.
        ascent: how the per-datapoint optimum is sought; flows need ``patience``.
        elbo_particles: draws for the ELBO of every unseen image.
        elbo_images: so many of them, all if None.
        compile: whether steps are compiled; training, search and weights.
        seed: of all random numbers.
    """

    epochs: int = 20
    warmup: float = 0.1
    training: int | None = None
    latent: int = 50
    images: int = 100
    particles: int = 200
    evidence_particles: int = 2000
    temperatures: int = 100
    pilot: int = 20
    ascent: Ascent = Ascent(patience=3)
    elbo_particles: int = 10
    elbo_images: int | None = None
    compile: bool = True
    seed: int = 0


QUICK = Settings(
    epochs=1,
    training=500,
    latent=8,
    images=10,
    particles=20,
    evidence_particles=100,
    temperatures=10,
    pilot=5,
    ascent=Ascent(stages=1, windows=2, window=20),
    elbo_images=100,
    compile=False,
)
"""To see whether everything runs."""


class Measured(NamedTuple):
    """What was measured of a set-up.

    Attributes:
        own: name of the guide's family.
        splits: "train" and "unseen", each a table of columns ``(N,)``, a number an image, nats:
            ``guide`` (L[q_phi]), ``optimum_FAMILY`` (L[q*]), ``importance`` and ``annealed``
            (log p(x)), with ``_stderr``; ``k_hat`` and ``effective_sample_size``.
        elbo: L[q_phi] of all unseen images, nats.
        facts: seconds, last movements of the search, objective of the last epoch.
    """

    own: str
    splits: dict[str, dict[str, Tensor]]
    elbo: Tensor
    facts: dict[str, Any]


class Images(NamedTuple):
    """The images that every set-up is judged on, binarised once."""

    train: Tensor
    unseen: Tensor
    all_unseen: Tensor


def images_of(splits: Splits, settings: Settings) -> Images:
    """The first ones of the training and of the test set."""
    train = data.static_binarisation(splits.train[: settings.images], settings.seed)
    unseen = data.static_binarisation(splits.test, settings.seed)
    return Images(train, unseen[: settings.images], unseen[: settings.elbo_images])


def result(name: str, splits: Splits, settings: Settings, folder: Path, show: bool) -> Measured:
    """Trains and measures a set-up, or reads what has been done.

    Args:
        name: of the set-up.
        splits: training and test images in [0, 1].
        settings: of the run.
        folder: of this set-up.
        show: whether to show bars.
    """
    missing = [part for part in PARTS if not (folder / f"{part}.pt").exists()]
    if missing:
        pair = _trained(SETUPS[name], splits.train[: settings.training], settings, folder, show)
        job = Job(pair, SETUPS[name], images_of(splits, settings), settings, show)
        for part in missing:
            torch.manual_seed(settings.seed)
            start = time.perf_counter()
            columns, facts = PARTS[part](job)
            _add_facts(folder, facts | {f"{part}_seconds": time.perf_counter() - start})
            save_state(folder / f"{part}.pt", columns)
    return read(folder)


def read(folder: Path) -> Measured:
    """What `result` has left in a folder."""
    facts = json.loads((folder / "facts.json").read_text())
    columns = {k: v for part in PARTS for k, v in load_state(folder / f"{part}.pt").items()}
    elbo, splits = columns.pop("elbo"), {}
    for key, column in columns.items():
        split, name = key.split("/")
        splits.setdefault(split, {})[name] = column
    return Measured(facts["own"], splits, elbo, facts)


def _trained(setup: Setup, x: Tensor, settings: Settings, folder: Path, show: bool) -> Pair:
    torch.manual_seed(settings.seed)
    pair = make_pair(setup, x, settings.latent)
    if (folder / "state.pt").exists():
        pair.load_state_dict(load_state(folder / "state.pt"))
        return pair
    loader = data.Loader(x, 128, shuffle=True, transform=torch.bernoulli, drop_last=True)
    steps = settings.epochs * len(loader)
    start = time.perf_counter()
    history = fit(
        pair,
        loader,
        partial(objectives.elbo, analytic_kl=True),
        epochs=settings.epochs,
        scheduler=partial(_falling, steps=steps),
        kl_weight=objectives.linear_warmup(max(1, int(settings.warmup * steps))),
        compile=settings.compile,
        progress=show,
    )
    facts = {"training_seconds": time.perf_counter() - start, "threads": torch.get_num_threads()}
    _add_facts(folder, facts | {"objective": history.epochs[-1].objective})
    save_state(folder / "state.pt", pair.state_dict())
    return pair


def _falling(optimizer: Optimizer, steps: int) -> LinearLR:
    """Step sizes fall linearly to a hundredth: a short training ends with less noise."""
    return LinearLR(optimizer, 1.0, 0.01, total_iters=steps)


# What is measured: columns by "split/name", and facts --------------------------------------------


class Job(NamedTuple):
    """A trained pair and what is to be measured of it."""

    pair: Pair
    setup: Setup
    images: Images
    settings: Settings
    show: bool


Found = tuple[dict[str, Tensor], dict[str, Any]]


def _bounds(job: Job) -> Found:
    """L[q_phi], L[q*] of every family, and log p(x) by importance sampling."""
    settings = job.settings
    found = compare(
        job.pair,
        job.images.train,
        job.images.unseen,
        families=job.setup.searched,
        particles=settings.particles,
        evidence_particles=settings.evidence_particles,
        ascent=settings.ascent,
        compile=settings.compile,
        progress=job.show,
    )
    columns = {
        f"{split}/{name}": column
        for split, of_split in found.splits.items()
        for name, column in _columns(of_split).items()
    }
    movements = {name: split.movement for name, split in found.splits.items()}
    return columns, {"own": found.splits["train"].own, "movements": movements}


def _annealed(job: Job) -> Found:
    """log p(x) by annealing from the guide, training and unseen images together."""
    settings, images = job.settings, job.images
    found = annealed_evidence(
        job.pair,
        torch.cat([images.train, images.unseen]),
        Annealing(settings.temperatures, pilot=settings.pilot),
        compile=settings.compile,
        progress=job.show,
    )
    numbers = {"annealed": found.value, "annealed_stderr": found.stderr}
    sizes = [len(images.train), len(images.unseen)]
    columns = {}
    for name, both in numbers.items():
        columns[f"train/{name}"], columns[f"unseen/{name}"] = both.split(sizes)
    return columns, {}


def _elbo(job: Job) -> Found:
    """L[q_phi] of all unseen images: what a difference as small as an encoder's takes."""
    particles = job.settings.elbo_particles
    return {"elbo": elbo_per_datum(job.pair, job.images.all_unseen, particles).value}, {}


PARTS: dict[str, Callable[[Job], Found]] = {
    "bounds": _bounds,
    "annealed": _annealed,
    "elbo": _elbo,
}


def _columns(split: Split) -> dict[str, Tensor]:
    """The numbers of each image of a split by name."""
    evidence = split.log_evidence
    estimates = {"guide": split.guide, "importance": evidence}
    estimates |= {f"optimum_{name}": bound for name, bound in split.bounds.items()}
    columns = {name: estimate.value for name, estimate in estimates.items()}
    columns |= {f"{name}_stderr": estimate.stderr for name, estimate in estimates.items()}
    health = {"effective_sample_size": evidence.effective_sample_size, "k_hat": evidence.k_hat}
    return columns | {name: column for name, column in health.items() if column is not None}


def _add_facts(folder: Path, more: dict[str, Any]) -> None:
    file = folder / "facts.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    save_json(file, known | more)
