"""What is said at the end: the gaps of every set-up, and what became of the claims."""

import csv
import io
from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any

from torch import Tensor

from bayesvae.core.estimates import TRUSTED, mean_and_error
from bayesvae.core.files import write_aside
from benchmarks.inference_gaps.claims import DIAGONAL, Judged, Outcome, Run
from benchmarks.inference_gaps.setups import SETUPS

HEADER = (
    "data",
    "set-up",
    "split",
    "log p(x)",
    "L[q*] diagonal",
    "L[q*] own family",
    "L[q_phi]",
    "amortization gap",
    "approximation gap",
    "of the diagonal",
    f"k-hat > {TRUSTED}",
    "ELBO, all unseen",
)
EVIDENCE = {
    "importance": "importance sampling from the pooled optima",
    "annealed": "annealed importance sampling from the guide",
}


def number(values: Tensor) -> str:
    """Mean and standard error.

    Example:
        >>> import torch
        >>> number(torch.tensor([1.0, 3.0]))
        '2.00 ± 1.00'
    """
    return "{:.2f} ± {:.2f}".format(*mean_and_error(values))


def rows(runs: Mapping[str, Run]) -> Iterator[tuple[str, ...]]:
    """A row for each split of each set-up of each data set, under `HEADER`."""
    for data, run in runs.items():
        for setup, found in run.measured.items():
            for split in found.splits:
                yield data, SETUPS[setup].title, split, *_numbers(run, setup, split)


def _numbers(run: Run, setup: str, split: str) -> Iterator[str]:
    gaps, found = run.gaps(setup, split), run.measured[setup]
    yield number(gaps.log_evidence)
    yield number(gaps.columns[f"optimum_{DIAGONAL}"])
    yield number(gaps.columns[f"optimum_{gaps.own}"])
    yield number(gaps.columns["guide"])
    yield number(gaps.amortization)
    yield number(gaps.approximation(gaps.own))
    yield number(gaps.approximation(DIAGONAL))
    doubted = gaps.columns.get("k_hat")
    yield "-" if doubted is None else f"{100 * (doubted > TRUSTED).double().mean():.0f} %"
    yield number(found.elbo) if split == "unseen" else ""


def text(runs: Mapping[str, Run], outcomes: Mapping[str, list[Outcome]], notes: list[str]) -> str:
    """The table in Markdown, the claims, and the notes before and after them."""
    lines = [*notes, "", *_markdown(HEADER, list(rows(runs))), "", *_estimates(runs), ""]
    for data, found in outcomes.items():
        lines += [f"{data}:"] + [line for outcome in found for line in _said(outcome)] + [""]
    return "\n".join([*lines, *notes]).strip()


def _markdown(head: tuple[str, ...], body: list[tuple[str, ...]]) -> Iterator[str]:
    for row in (head, ("---",) * len(head), *body):
        yield f"| {' | '.join(row)} |"


def _estimates(runs: Mapping[str, Run]) -> Iterator[str]:
    """How the two estimates of log p(x) compare, and which is used."""
    for data, run in runs.items():
        splits = [s for found in run.measured.values() for s in found.splits.values()]
        total = sum(len(split["guide"]) for split in splits)
        means = {name: float(sum(s[name].sum() for s in splits)) / total for name in EVIDENCE}
        both = ", ".join(f"{EVIDENCE[name]} {mean:.3f}" for name, mean in means.items())
        yield f"{data}: log p(x), mean over set-ups: {both}. Used: {EVIDENCE[run.evidence]}."


def _said(outcome: Outcome) -> Iterator[str]:
    yield f"  {outcome.verdict.upper():14}{outcome.claim.text}"
    for part in outcome.parts:
        yield f"{'':16}{part.name}: {part.mean:+.2f} ± {part.stderr:.2f}, {_range(part)}"


def _range(part: Judged) -> str:
    if part.low == -inf:
        return f"should be below {part.high:g}"
    if part.high == inf:
        return f"should be above {part.low:g}"
    return f"should lie between {part.low:g} and {part.high:g}"


def as_json(runs: Mapping[str, Run], outcomes: Mapping[str, list[Outcome]]) -> dict[str, Any]:
    """Rows, claims with their parts, and the facts of each set-up, for a file."""
    return {
        "rows": [dict(zip(HEADER, row, strict=True)) for row in rows(runs)],
        "evidence": {data: run.evidence for data, run in runs.items()},
        "claims": {
            data: [
                {"claim": each.claim.text, "verdict": each.verdict}
                | {"parts": [_finite(part) for part in each.parts]}
                for each in found
            ]
            for data, found in outcomes.items()
        },
        "facts": {
            data: {setup: found.facts for setup, found in run.measured.items()}
            for data, run in runs.items()
        },
    }


def _finite(part: Judged) -> dict[str, Any]:
    """Ranges without an end say so by null, as JSON knows no infinity."""
    return {key: None if value in (inf, -inf) else value for key, value in part._asdict().items()}


def save_csv(path: Path, runs: Mapping[str, Run]) -> None:
    """One line an image: data set, set-up, split, position, then every number measured, nats.

    Args:
        path: the file.
        runs: by data set.
    """
    tables = [
        (data, setup, split, columns)
        for data, run in runs.items()
        for setup, found in run.measured.items()
        for split, columns in found.splits.items()
    ]
    names = list(dict.fromkeys(name for *_, columns in tables for name in columns))
    made = io.StringIO()
    writer = csv.writer(made)
    writer.writerow(["data", "setup", "split", "position", *names])
    for *place, columns in tables:
        for position in range(len(columns["guide"])):
            numbers = [
                f"{columns[name][position]:.6g}" if name in columns else "" for name in names
            ]
            writer.writerow([*place, position, *numbers])
    write_aside(path, lambda aside: aside.write_text(made.getvalue()))
