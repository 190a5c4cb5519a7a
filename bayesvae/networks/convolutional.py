"""Convolutions that halve an image, and their mirror."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from bayesvae.networks.base import Shape, as_shape, check_event, check_widths, set_output_bias


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
        check_widths(channels, "channels", "ConvEncoder")
        self.image, self.outputs = as_shape(image), as_shape(outputs)
        layers: list[nn.Module] = []
        for before, after in pairwise([self.image[0], *channels]):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), activation()]
        smallest = _halved(self.image, len(channels))[-1]
        flat = prod(smallest) * [self.image[0], *channels][-1]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, prod(self.outputs)))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(*, C, H, W)`` to ``(*, *outputs)``."""
        check_event(x, self.image, "ConvEncoder")
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
        check_widths(channels, "channels", "ConvDecoder")
        self.inputs, self.image = as_shape(inputs), as_shape(image)
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
        set_output_bias(self, output_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(*, *inputs)`` to ``(*, C, H, W)``."""
        check_event(x, self.inputs, "ConvDecoder")
        leading = x.shape[: x.dim() - len(self.inputs)]
        flat = x.reshape(-1, prod(self.inputs))
        return self.layers(flat).reshape(*leading, *self.image) + self.bias
