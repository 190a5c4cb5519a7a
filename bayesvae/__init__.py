"""Deep latent-variable models as Pyro model/guide pairs, and what their inference costs."""

__version__ = "0.1.0"
