"""A comparison as ArviZ's labelled arrays: one group a split, one entry a datum.

ArviZ is optional and imported when it is asked for.
"""

import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch

from bayesvae.core.estimates import Estimate
from bayesvae.gaps.split_results import Split


def inference_data(splits: Mapping[str, Split]) -> Any:
    """Every estimate and its error, in groups named as the splits are.

    Args:
        splits: by name.

    Returns:
        An ``arviz.InferenceData``.

    Raises:
        ImportError: if ArviZ is not installed.
    """
    arviz, xarray = _arviz()
    groups = {name: xarray.Dataset(*_contents(split)) for name, split in splits.items()}
    return arviz.InferenceData(**groups)


def _arviz() -> tuple[ModuleType, ModuleType]:
    """ArviZ and xarray.

    Raises:
        ImportError: if they are not installed.
    """
    try:
        with warnings.catch_warnings():  # its announcement of another release
            warnings.simplefilter("ignore", FutureWarning)
            import arviz
            import xarray
    except ImportError as error:
        raise ImportError(
            f"to_inference_data needs ArviZ, which is not installed ({error}). Use "
            "pip install 'bayesvae[arviz]'; to_csv(...) needs nothing."
        ) from error
    return arviz, xarray


def _contents(split: Split) -> tuple[dict, dict, dict]:
    """Variables, coordinates and attributes of a split's data set."""
    count = len(split.guide.value)
    found, coordinates = {}, {"datum": range(count)}
    for name, estimate in split.single().items():
        found |= _variables(name, ("datum",), [estimate])
    stacks = {"semi_amortized": ("steps", split.semi), "optimum": ("family", split.bounds)}
    for name, (dim, held) in stacks.items():
        if held:
            found |= _variables(name, (dim, "datum"), list(held.values()))
            coordinates[dim] = list(held)
    attributes = {"own_family": split.own or "", "given": split.guide.given}
    return found, coordinates, attributes


def _variables(name: str, dims: tuple[str, ...], held: list[Estimate]) -> dict[str, tuple]:
    """Value, error and health of estimates, stacked along the dims before the last."""
    attributes = {"units": "nats", "bound": held[0].bound}
    fields = {
        name: [each.value for each in held],
        f"{name}_stderr": [each.stderr for each in held],
        f"{name}_effective_sample_size": [each.effective_sample_size for each in held],
        f"{name}_k_hat": [each.k_hat for each in held],
    }
    shape = (-1,) if len(dims) == 1 else (len(held), -1)
    return {
        field: (dims, torch.cat(values).reshape(shape).numpy(), attributes)
        for field, values in fields.items()
        if values[0] is not None
    }
