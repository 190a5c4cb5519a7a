"""The command line: ``bayesvae fit``, ``compare``, ``evaluate``, ``sample`` and ``list``."""

from bayesvae.cli.main import main

__all__ = ["main"]
