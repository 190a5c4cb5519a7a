"""The command line: ``bayesvae fit`` and the commands that examine a run."""

from bayesvae.cli.main import main

__all__ = ["main"]
