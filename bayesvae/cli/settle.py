"""What the values of the data settle: the likelihood, binarisation, standardisation.

Bits are Bernoulli; so are grey levels, on bits drawn afresh in each batch, unless most of them are
neither black nor white, as in photographs, whose bits would be coin flips.  Those and real numbers
are Normal; columns are standardised, for their units differ.  Whole numbers are Poisson if they
are counts, Categorical if they are levels.
"""

from collections.abc import Callable

from jsonargparse import Namespace

from bayesvae import data

_TAKES = {
    "binary": ("Bernoulli", "Normal", "Categorical", "Poisson"),
    "grey": ("Bernoulli", "Normal"),
    "whole": ("Poisson", "Categorical", "Normal"),
    "real": ("Normal",),
}
"""By kind of data, the package's likelihoods that take them; the first is the default."""

_MOST = 0.6
"""Share of grey levels inside (0, 1) beyond which they are no black and white drawing."""

_ADVICE = {
    "binary": "choose --likelihood Bernoulli",
    "grey": "choose --likelihood Normal or --binarise dynamic",
    "whole": "choose --likelihood Poisson for counts, Categorical for levels, or Normal",
    "real": "choose --likelihood Normal",
}


def settle(config: Namespace, splits: data.Splits, say: Callable[[str], None]) -> None:
    """Fills in what a configuration leaves open, and tells what was found and chosen.

    Args:
        config: the options of ``bayesvae fit``.
        splits: the data as read.
        say: told in words.

    Raises:
        ValueError: if the options do not fit the data.
    """
    described = data.describe(splits.train)
    kind = "real" if described.kind == "whole" and described.low < 0 else described.kind
    unseen = 0 if splits.test is None else len(splits.test)
    say(f"{config.data}: {len(splits.train):,} + {unseen:,} data; {described.text}")
    _check_levels(config, kind)
    kind = kind if config.levels is None else "whole"
    smooth = kind == "real" or (kind == "grey" and described.inside > _MOST)
    default = "Normal" if smooth else _TAKES[kind][0]
    chosen = [] if config.get("pair") is not None else _likelihood(config, default)
    ours = _name(config) if config.get("pair") is None else ""
    if config.binarise is None:
        config.binarise = "dynamic" if (kind, ours) == ("grey", "Bernoulli") else "none"
        chosen += [f"--binarise {config.binarise}"] if config.binarise != "none" else []
    if config.standardise is None:
        config.standardise = smooth and splits.train.ndim == 2 and ours in ("", "Normal")
        chosen += ["--standardise true"] if config.standardise else []
    _check(config, kind, ours, described.text)
    if chosen:
        other = [name for name in _TAKES[kind] if name != ours][:2]
        instead = f" (or choose --likelihood {' or '.join(other)})" if other else ""
        say(f"  so {' '.join(chosen)}{instead}")


def _likelihood(config: Namespace, default: str) -> list[str]:
    """The likelihood that was chosen, if it was open."""
    if config.likelihood is not None:
        return []
    name = "Categorical" if config.levels is not None else default
    config.likelihood = Namespace(class_path=f"bayesvae.likelihoods.{name}")
    return [f"--likelihood {name}"]


def _name(config: Namespace) -> str:
    """The name of the likelihood if it is one of the package's, else empty."""
    home, _, name = config.likelihood.class_path.rpartition(".")
    return name if home == "bayesvae.likelihoods" else ""


def _check_levels(config: Namespace, kind: str) -> None:
    if config.levels is None:
        return
    if (
        config.levels < 2
        or config.binarise not in (None, "none")
        or kind not in ("grey", "binary")
    ):
        raise ValueError(
            "--levels needs grey levels in [0, 1], a number of at least 2, and no binarisation; "
            f"got {kind} data and --levels {config.levels} with --binarise {config.binarise}."
        )


def _check(config: Namespace, kind: str, ours: str, text: str) -> None:
    seen = kind if config.binarise == "none" else "binary"
    if config.binarise != "none" and kind not in ("grey", "binary"):
        raise ValueError(
            f"--binarise {config.binarise} needs grey levels in [0, 1]; got {text}. Divide by the "
            f"largest level with --divide, or {_ADVICE[kind]}."
        )
    if config.standardise and (kind == "binary" or ours not in ("", "Normal")):
        raise ValueError(
            f"--standardise makes real numbers of data, for --likelihood Normal; got {text} and "
            f"{ours or 'a likelihood of yours'}. Leave one of them out."
        )
    if ours and ours not in _TAKES[seen]:
        raise ValueError(f"--likelihood {ours} does not take {text}; {_ADVICE[kind]}.")
    if ours == "Bernoulli" and seen == "grey":
        raise ValueError(f"--likelihood Bernoulli needs bits; got {text}; {_ADVICE[kind]}.")
