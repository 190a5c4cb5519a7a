"""``bayesvae evaluate`` and ``sample``, and what all commands that read a run begin with."""

from pathlib import Path

import torch
from jsonargparse import Namespace
from torch import Tensor

from bayesvae.cli import pictures, runs
from bayesvae.cli.arguments import COMPILE
from bayesvae.cli.build import serves_unseen
from bayesvae.cli.estimators import described, evidence_of, in_words, refuse_walking
from bayesvae.cli.mistakes import nearest
from bayesvae.cli.output import device_of, named, remarks, show, unused, write_csv
from bayesvae.cli.source import Labelled, Prepared, others, prepare, refuse_reading
from bayesvae.core import files
from bayesvae.core.estimates import Estimate
from bayesvae.evidence import elbo_per_datum


def run_evaluate(options: Namespace) -> None:
    """Writes the ELBO and log p(x) of every datum, and prints their means."""
    _refuse_contradictions(options)
    run = opened(options)
    name = options.split if options.data is None else Path(options.data).stem
    out = Path(options.out or run.folder / "evaluations" / f"{name}.csv")
    for path in (out, out.with_suffix(".json")):
        unused(path, options.overwrite)
    found = _data(run, options, train=options.split == "train")
    x, index = found.first(options.limit)
    how = {"progress": not options.quiet, "compile": COMPILE[options.compile]}
    elbo = elbo_per_datum(run.pair, (x, index), options.particles, **how)
    evidence = evidence_of(run.pair, (x, index), options)
    figures = named("elbo", elbo.mean()) | named("log_evidence", evidence.mean())
    facts = {"data": options.data or run.facts.source, "split": name, "evaluated_data": len(x)}
    more = {"particles": options.particles, "seed": options.seed, "given": evidence.given}
    more |= described(evidence, options)
    with runs.adding(run, out) as at:
        write_csv(at, _columns(index, found.labels, elbo, evidence))
        files.save_json(at.with_suffix(".json"), facts | figures | more)
    print(f"{len(x):,} data ({name}), {options.particles:,} draws each. Nats per datum:")
    show(figures)
    print(f"log_evidence by {in_words(options)}, a lower bound in expectation")
    print(f"Written to {out}, and in short to {out.with_suffix('.json')}")


def _refuse_contradictions(options: Namespace) -> None:
    """Refuses options of ``evaluate`` that do not go together.

    Raises:
        ValueError: if there are any.
    """
    if options.data is not None and options.split == "train":
        raise ValueError("--split train is the run's own data; got --data too. Leave one out.")
    if options.out is not None and Path(options.out).suffix == ".json":
        raise ValueError(
            f"--out names the table, and its summary is a .json beside it; got {options.out}. "
            f"Use {Path(options.out).with_suffix('.csv')}."
        )
    refuse_walking(options)


def run_sample(options: Namespace) -> None:
    """Writes draws, reconstructions, interpolations, traversals and spaces of a run."""
    unknown = sorted(set(options.show or ()) - set(pictures.SHOWS))
    if unknown:
        raise ValueError(
            f"--show takes any of {', '.join(pictures.SHOWS)}; got {', '.join(unknown)}."
            f"{nearest(unknown[0], pictures.SHOWS)}"
        )
    run = opened(options)
    folder = Path(options.out or run.folder / "samples")
    wanted = options.show
    data = _shown(run, options)
    look = pictures.Look(run.pair, run.facts, data, folder, True, options.count, options.steps)
    can = pictures.possible(look)
    beyond = [name for name in wanted or () if name not in can]
    if beyond:
        raise ValueError(
            f"--show {' '.join(beyond)} is not to be had of this run; it has {', '.join(can)}. "
            "Paths need vectors of latents, posteriors two latents, and all but draws need data."
        )
    unused(folder, options.overwrite)
    with runs.adding(run, folder) as at:
        for name in wanted or can:
            pictures.SHOWS[name](look._replace(folder=at))
    made = sorted(path.name for path in folder.iterdir())
    print(f"Written to {folder}: {', '.join(made)}")


def opened(options: Namespace) -> runs.Run:
    """The run, on the device that was asked for; the seed is set."""
    device = device_of(options.device)
    run = runs.read(options, device)
    torch.manual_seed(options.seed)
    return run


def own_data(run: runs.Run, options: Namespace) -> Prepared:
    """The run's own data, read again."""
    if options.data_root is not None:
        run.config.data_root = options.data_root
    return prepare(run.config, remarks(options.quiet), run.facts)


def serves_others(run: runs.Run, data: Labelled) -> bool:
    """Whether the run's guide serves data that it was not trained on."""
    device = next(iter(run.pair.parameters())).device
    x, index = (part.to(device) for part in data.first(2))
    return serves_unseen(run.pair, x, index, run.facts.size)


def _data(run: runs.Run, options: Namespace, train: bool) -> Labelled:
    """The data that a command looks at: others, or the run's training or unseen ones.

    Raises:
        ValueError: if the run has none of that kind, or its guide knows no other than its training
            data.
    """
    if options.data is None:
        refuse_reading(options, "no --data")
        own = own_data(run, options)
        found = own.seen if train else own.test
    else:
        found = others(options, run.config, run.facts, remarks(options.quiet))
    if found is None:
        raise ValueError(
            "The run kept no data unseen. Use --split train, or name others with --data."
        )
    if (options.data is not None or not train) and not serves_others(run, found):
        raise ValueError(
            "The run's guide has a row for each training datum and serves no other. Use --split "
            "train, or train with --guide Amortized."
        )
    return found


def _shown(run: runs.Run, options: Namespace) -> Labelled | None:
    """Data for pictures: others, else the run's unseen ones, or those that its guide has rows for.

    None if the run's own are not there and nothing but draws was asked for.
    """
    if options.data is not None:
        return _data(run, options, train=False)
    try:
        own = own_data(run, options)
    except (OSError, ValueError) as missing:
        if set(options.show or ()) - {"draws"}:
            raise
        remarks(options.quiet)(f"Only draws, for the run's data are not to be had: {missing}")
        return None
    return own.test if own.test is not None and serves_others(run, own.seen) else own.seen


def _columns(
    index: Tensor, labels: Tensor | None, elbo: Estimate, evidence: Estimate
) -> dict[str, Tensor]:
    return {
        "position": index,
        **({} if labels is None else {"label": labels[: len(index)]}),
        "elbo": elbo.value,
        "elbo_stderr": elbo.stderr,
        "log_evidence": evidence.value,
        "log_evidence_stderr": evidence.stderr,
        "effective_sample_size": evidence.effective_sample_size,
        **({} if evidence.k_hat is None else {"k_hat": evidence.k_hat}),
    }
