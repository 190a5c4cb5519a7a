"""Runs notebooks and stores them with what they show: ``python execute.py NOTEBOOK ...``.

Each runs in its own folder, in a fresh kernel of the Python that runs this file, from the first
cell to the last, and is stored only if no cell fails.  Times and versions stay out, so that what
changes in a stored notebook is what it says.
"""

import os
import sys
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

# Pyro's progress bars ask for widgets, which nothing here shows.
WARNINGS = {"PYTHONWARNINGS": "ignore:IProgress not found"}


def execute(path: Path) -> None:
    """Runs a notebook and stores it in its place.

    Args:
        path: the notebook.

    Raises:
        nbclient.exceptions.CellExecutionError: at the first cell that fails; nothing is stored.
    """
    notebook = nbformat.read(path, as_version=4)
    # Without folders to look in, no kernel of another environment answers to "python3".
    kernel = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    folder = {"metadata": {"path": path.parent.resolve()}}
    client = NotebookClient(notebook, kernel, timeout=None, record_timing=False, resources=folder)
    client.execute(env=os.environ | WARNINGS, cleanup_kc=True)  # ends the kernel with the notebook
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(argument, flush=True)
        execute(Path(argument))
