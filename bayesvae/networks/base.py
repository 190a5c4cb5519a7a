"""What all networks share: shapes given either way, checks, where an output bias starts."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Shape = int | Sequence[int]


def as_shape(shape: Shape) -> tuple[int, ...]:
    """A shape as a tuple."""
    return (shape,) if isinstance(shape, int) else tuple(shape)


def check_event(x: Tensor, shape: tuple[int, ...], network: str) -> None:
    """Refuses inputs that do not end in the shape of one datum."""
    if x.dim() < len(shape) or tuple(x.shape[x.dim() - len(shape) :]) != shape:
        raise ValueError(
            f"{network} takes inputs of shape (*, {', '.join(map(str, shape))}); got "
            f"{tuple(x.shape)}. Build it with the shape of one datum."
        )


def check_widths(widths: Sequence[int], name: str, network: str) -> None:
    """Refuses layers without units."""
    if any(width < 1 for width in widths):
        raise ValueError(
            f"{network} needs {name} of at least 1; got {list(widths)}. Leave empty layers out."
        )


def set_output_bias(layer: nn.Module, bias: Tensor | None) -> None:
    """Starts a layer's bias at given values, if there are any."""
    if bias is not None:
        with torch.no_grad():
            layer.bias.copy_(bias.reshape(layer.bias.shape))


def data_logits(x: Tensor, margin: float = 1e-3) -> Tensor:
    """Logits of the mean of binary data: where the output bias of a Bernoulli decoder may start.

    "Importance Weighted Autoencoders" (Burda et al., 2016).

    Args:
        x: data in [0, 1], ``(N, *event)``.
        margin: means are clipped to ``[margin, 1 - margin]``.

    Returns:
        ``(*event)``.

    Example:
        >>> data_logits(torch.tensor([[0.0, 1.0], [0.0, 0.0]])).round(decimals=2)
        tensor([-6.9100,  0.0000])
    """
    return torch.logit(x.mean(0).clamp(margin, 1 - margin))
