"""Dense layers."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from bayesvae.networks.base import Shape, as_shape, check_event, check_widths, set_output_bias


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
        >>> import torch
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
        check_widths(hidden, "hidden widths", "MLP")
        self.inputs, self.outputs = as_shape(inputs), as_shape(outputs)
        widths = [prod(self.inputs), *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), activation()]
        layers.append(nn.Linear(widths[-1], prod(self.outputs)))
        set_output_bias(layers[-1], output_bias)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(*, *inputs)`` to ``(*, *outputs)``."""
        check_event(x, self.inputs, "MLP")
        leading = x.shape[: x.dim() - len(self.inputs)]
        flat = x.reshape(*leading, prod(self.inputs))
        return self.layers(flat).reshape(*leading, *self.outputs)
