"""Networks map ``(*, *inputs)`` to ``(*, *outputs)`` for any leading dims (particles, data).

None couples the rows of a batch (no batch normalisation): with it, log p(x_n | z_n) would depend
on the other data and no bound per datum would mean anything.  Shapes may be given as a number of
features or as a tuple; an image is ``(C, H, W)``.

A network of your own is one file here and one line below.  It imports nothing of the package.
"""

from bayesvae.networks.base import Shape, data_logits
from bayesvae.networks.convolutional import ConvDecoder, ConvEncoder
from bayesvae.networks.mlp import MLP

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "Shape", "data_logits"]
