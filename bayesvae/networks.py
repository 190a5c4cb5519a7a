"""Networks map ``(*, *inputs)`` to ``(*, *outputs)`` for any leading dims (particles, data).

None couples the rows of a batch (no batch normalisation): with it, log p(x_n | z_n) would depend
on the other data and no bound per datum would mean anything.  Shapes may be given as a number of
features or as a tuple; an image is ``(C, H, W)``.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

Shape = int | Sequence[int]


def _shape(shape: Shape) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _check_event(x: Tensor, shape: tuple[int, ...], network: str) -> None:
    if x.dim() < len(shape) or tuple(x.shape[x.dim() - len(shape) :]) != shape:
        raise ValueError(
            f"{network} takes inputs of shape (*, {', '.join(map(str, shape))}); got "
            f"{tuple(x.shape)}. Build it with the shape of one datum."
        )


def _check_widths(widths: Sequence[int], name: str, network: str) -> None:
    if any(width < 1 for width in widths):
        raise ValueError(
            f"{network} needs {name} of at least 1; got {list(widths)}. Leave empty layers out."
        )


def _set_output_bias(layer: nn.Module, bias: Tensor | None) -> None:
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


class MLP(nn.Module):
    """A multilayer perceptron.

    Args:
        inputs: features or event shape of the input.
        hidden: widths of the hidden layers; empty for an affine map.
        outputs: features or event shape of the output.
        activation: makes the nonlinearity.
        output_bias: where the last bias starts, ``(*outputs)``, such as `data_logits`.

    Raises:
        ValueError: for a width below 1; on a call with another event shape than ``inputs``.

    Example:
        >>> decoder = MLP(2, (16,), (1, 8, 8))
        >>> decoder(torch.zeros(5, 3, 2)).shape
        torch.Size([5, 3, 1, 8, 8])
    """

    def __init__(
        self,
        inputs: Shape,
        hidden: Sequence[int],
        outputs: Shape,
        activation: Callable[[], nn.Module] = nn.ReLU,
        output_bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        _check_widths(hidden, "hidden widths", "MLP")
        self.inputs, self.outputs = _shape(inputs), _shape(outputs)
        widths = [prod(self.inputs), *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), activation()]
        layers.append(nn.Linear(widths[-1], prod(self.outputs)))
        _set_output_bias(layers[-1], output_bias)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(*, *inputs)`` to ``(*, *outputs)``."""
        _check_event(x, self.inputs, "MLP")
        leading = x.shape[: x.dim() - len(self.inputs)]
        flat = x.reshape(*leading, prod(self.inputs))
        return self.layers(flat).reshape(*leading, *self.outputs)


def _halved(image: tuple[int, ...], times: int) -> list[tuple[int, int]]:
    sizes = [tuple(image[1:])]
    for _ in range(times):
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
    return sizes


class ConvEncoder(nn.Module):
    """Strided convolutions, each halving the image, and an affine map.

    Args:
        image: ``(C, H, W)``.
        outputs: features or event shape of the output.
        channels: channels of each convolution.
        activation: makes the nonlinearity.

    Raises:
        ValueError: for channels below 1; on a call with another event shape than ``image``.

    Example:
        >>> ConvEncoder((1, 8, 8), 10)(torch.zeros(4, 1, 8, 8)).shape
        torch.Size([4, 10])
    """

    def __init__(
        self,
        image: Sequence[int],
        outputs: Shape,
        channels: Sequence[int] = (32, 64),
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        _check_widths(channels, "channels", "ConvEncoder")
        self.image, self.outputs = _shape(image), _shape(outputs)
        layers: list[nn.Module] = []
        for before, after in pairwise([self.image[0], *channels]):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), activation()]
        smallest = _halved(self.image, len(channels))[-1]
        flat = prod(smallest) * [self.image[0], *channels][-1]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, prod(self.outputs)))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(*, C, H, W)`` to ``(*, *outputs)``."""
        _check_event(x, self.image, "ConvEncoder")
        leading = x.shape[:-3]
        return self.layers(x.reshape(-1, *self.image)).reshape(*leading, *self.outputs)


class ConvDecoder(nn.Module):
    """An affine map and transposed convolutions, each doubling the image: `ConvEncoder` mirrored.

    Args:
        inputs: features or event shape of the input.
        image: ``(C, H, W)`` of the output.
        channels: channels before each transposed convolution.
        activation: makes the nonlinearity.
        output_bias: added to the output, starts at this ``(C, H, W)``; zero if not given.

    Raises:
        ValueError: for channels below 1; on a call with another event shape than ``inputs``.

    Example:
        >>> ConvDecoder(10, (1, 8, 8))(torch.zeros(6, 4, 10)).shape
        torch.Size([6, 4, 1, 8, 8])
    """

    def __init__(
        self,
        inputs: Shape,
        image: Sequence[int],
        channels: Sequence[int] = (64, 32),
        activation: Callable[[], nn.Module] = nn.ReLU,
        output_bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        _check_widths(channels, "channels", "ConvDecoder")
        self.inputs, self.image = _shape(inputs), _shape(image)
        sizes = _halved(self.image, len(channels))[::-1]
        self.smallest = ([*channels, self.image[0]][0], *sizes[0])
        layers: list[nn.Module] = [nn.Linear(prod(self.inputs), prod(self.smallest))]
        layers.append(nn.Unflatten(-1, self.smallest))
        pairs = zip(pairwise([*channels, self.image[0]]), pairwise(sizes), strict=True)
        for (before, after), (small, large) in pairs:
            even = tuple(int(2 * s == side) for s, side in zip(small, large, strict=True))
            up = nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=even)
            layers += [activation(), up]
        self.layers = nn.Sequential(*layers)
        self.bias = nn.Parameter(torch.zeros(self.image))
        _set_output_bias(self, output_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(*, *inputs)`` to ``(*, C, H, W)``."""
        _check_event(x, self.inputs, "ConvDecoder")
        leading = x.shape[: x.dim() - len(self.inputs)]
        flat = x.reshape(-1, prod(self.inputs))
        return self.layers(flat).reshape(*leading, *self.image) + self.bias
