"""The command line: ``bayesvae fit`` and the commands that examine a run.

`main` has the commands, their exit codes and what is said of a mistake (`mistakes`).  Words become
a configuration in `arguments`, `parse` and `settle`; a configuration becomes a pair in `parts` and
`build`; what is not trusted is refused in `trust`.  `runs` reads and writes a run's folder.  It
may use all of the package, and nothing else may use it.
"""

from bayesvae.cli.main import main

__all__ = ["main"]
