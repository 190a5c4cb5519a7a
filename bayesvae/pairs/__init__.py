"""Pairs: generative programs with their guides, ready to fit."""

from bayesvae.pairs.layered import BottomUp, LatentLayers, hierarchical, vae
from bayesvae.pairs.linear import PPCA, ppca

__all__ = ["PPCA", "BottomUp", "LatentLayers", "hierarchical", "ppca", "vae"]
