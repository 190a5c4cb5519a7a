"""The command line: ``bayesvae fit`` and ``bayesvae compare``."""

from bayesvae.cli.main import main

__all__ = ["main"]
