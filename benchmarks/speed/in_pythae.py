"""pythae: its VAE under its own trainer.

A slice of steps is one call of the trainer's ``train_step``, which is its loop over batches:
forward, loss, backward, optimiser, callbacks.  The batches lie in memory in place of its data
loader, and its progress bar is off.  Its encoder returns a log-variance, here the logarithm of the
same scales that the others use; its likelihood is the cross-entropy of probabilities.
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from pythae.data.datasets import BaseDataset, DatasetOutput
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.speed.cases import Arrays, Case
from benchmarks.speed.in_torch import arrays
from benchmarks.speed.worker import Gate


class Encoder(BaseEncoder):
    """Means and log-variances."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> ModelOutput:
        """For ``(B, D)``."""
        loc, raw = self.network(x).chunk(2, -1)
        log_variance = 2 * (F.softplus(raw) + 1e-6).log()
        return ModelOutput(embedding=loc, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """Probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> ModelOutput:
        """For ``(B, d)``."""
        return ModelOutput(reconstruction=self.network(z).sigmoid())


class Binarising(VAE):
    """Its VAE with batches drawn as bits first."""

    def forward(self, inputs: DatasetOutput, **named: Any) -> ModelOutput:
        """For batches of grey levels."""
        return super().forward(DatasetOutput(data=inputs["data"].bernoulli()), **named)


class Gated(TrainingCallback):
    """Holds the trainer at the beginning of each epoch."""

    def __init__(self, gate: Gate, named: dict[str, Tensor]) -> None:
        self.gate, self.named = gate, named

    def on_epoch_begin(self, training_config: BaseTrainerConfig, **named: Any) -> None:
        """Waits."""
        self.gate.next(partial(arrays, self.named))


class InMemory:
    """Stands where the trainer has its data loader; serves the next so many batches."""

    def __init__(self, x: np.ndarray) -> None:
        self.batches = [DatasetOutput(data=b) for b in torch.from_numpy(x)]
        self.dataset, self.steps, self.count = range(x.shape[0] * x.shape[1]), 1, count()

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[DatasetOutput]:
        for _ in range(self.steps):
            yield self.batches[next(self.count) % len(self.batches)]


class TrainerSteps:
    """Runs the trainer's own loop over batches in memory."""

    def __init__(self, trainer: BaseTrainer, named: dict[str, Tensor], x: np.ndarray) -> None:
        self.trainer, self.named = trainer, named
        trainer.prepare_training()
        trainer.callback_handler.callbacks = trainer.callback_handler.callbacks[:1]
        trainer.train_loader = InMemory(x)

    def run(self, steps: int) -> None:
        """Takes so many steps."""
        self.trainer.train_loader.steps = steps
        self.trainer.train_step(1)

    def weights(self) -> Arrays:
        """The parameters by name."""
        return arrays(self.named)


def make_vae(case: Case, weights: Arrays, kind: type[VAE] = VAE) -> tuple[VAE, dict[str, Tensor]]:
    """Its VAE with networks that hold the first weights, and those by name."""
    networks, named = {}, {}
    for name in ("encoder", "decoder"):
        shapes = [weights[f"{name}.{layer}.weight"].shape for layer in (0, 1)]
        affine = [nn.Linear(before, after) for after, before in shapes]
        networks[name] = nn.Sequential(affine[0], nn.ReLU(), affine[1])
        for layer, each in enumerate(affine):
            named |= {f"{name}.{layer}.{key}": value for key, value in each.named_parameters()}
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(torch.from_numpy(weights[name]))
    config = VAEConfig(
        input_dim=(case.features,), latent_dim=case.latent, reconstruction_loss="bce"
    )
    return kind(config, Encoder(networks["encoder"]), Decoder(networks["decoder"])), named


def make_trainer(
    vae: VAE,
    case: Case,
    data: BaseDataset,
    epochs: int = 1,
    callbacks: list[TrainingCallback] | None = None,
) -> BaseTrainer:
    """Its trainer, which writes to a temporary folder and logs nothing."""
    logging.disable(logging.INFO)
    config = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(prefix="pythae-"),
        per_device_train_batch_size=case.batch,
        num_epochs=epochs,
        learning_rate=1e-3,
        no_cuda=True,
    )
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return BaseTrainer(vae, data, training_config=config, callbacks=callbacks)


def make(case: Case, weights: Arrays, x: np.ndarray, index: np.ndarray) -> TrainerSteps:
    """The contestant, set up."""
    vae, named = make_vae(case, weights)
    flat = torch.from_numpy(x.reshape(-1, case.features))
    data = BaseDataset(flat, torch.zeros(len(flat)))
    return TrainerSteps(make_trainer(vae, case, data), named, x)


def epochs(case: Case, weights: Arrays, levels: np.ndarray, gate: Gate) -> None:
    """Epochs of its trainer as it comes, while the gate opens."""
    vae, named = make_vae(case, weights, Binarising)
    data = BaseDataset(torch.from_numpy(levels).float().div(255), torch.zeros(len(levels)))
    make_trainer(vae, case, data, gate.planned, [Gated(gate, named)]).train()
