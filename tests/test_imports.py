"""Who may know whom: the model half knows no algorithm, the algorithms know no component."""

import ast
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bayesvae

ROOT = Path(bayesvae.__file__).parent

# A module may import those in its row, and modules of its own folder.
MAY_IMPORT = {
    "programs": set(),
    "distributions": set(),
    "trace": {"distributions", "programs", "tracing"},
    "kernels": set(),
    "products": {"kernels"},
    "elementary": {"kernels"},
    "precision": set(),
    "items": set(),
    "tracing": {"elementary", "items", "products"},
    "calls": {"tracing"},
    "compiled": {"calls", "entries", "tracing"},
    "entries": {"calls", "tracing"},
    "densities": {"compiled", "estimates", "pair", "trace"},
    "steps": {"compiled", "updates"},
    "updates": {"optimizers", "tracing"},
    "svi": {"compiled", "objectives", "pair", "precision", "programs", "steps"},
    "objectives": {"programs", "trace"},
    "pair": {"programs"},
    "dependence": {"programs", "trace"},
    "check": {"distributions", "lines", "objectives", "pair", "programs", "trace"},
    "networks": set(),
    "families": {"distributions"},
    "guides": {"distributions", "families", "programs", "slopes", "trace"},
    "priors": {"families"},
    "likelihoods": {"families"},
    "pairs": {"distributions", "families", "guides", "pair", "programs"},
    "optimizers": set(),
    "checkpoint": set(),
    "data": set(),
    "plots": {"checkpoint"},
    "fit": {
        "check",
        "compiled",
        "data",
        "dependence",
        "history",
        "objectives",
        "optimizers",
        "pair",
        "precision",
        "programs",
        "steps",
        "trace",
    },
    "history": {"check", "checkpoint", "compiled", "data", "objectives", "pair", "programs"},
    "estimates": set(),
    "evaluation": {"check", "data", "dependence", "distributions", "pair", "programs", "trace"},
    "proposals": {"ascent", "compiled", "families", "frames", "latents"},
    "evidence": {
        "compiled",
        "data",
        "estimates",
        "evaluation",
        "latents",
        "memory",
        "pair",
        "programs",
        "proposals",
        "trace",
        "tracing",
    },
    "latents": {"distributions", "programs", "trace"},
    "hmc": set(),
    "chains": {"compiled", "data", "estimates", "evaluation", "hmc", "latents", "memory", "pair"},
    "ais": {"compiled", "hmc", "latents", "pair", "proposals"},
    "brackets": {
        "ais",
        "chains",
        "compiled",
        "estimates",
        "evaluation",
        "generate",
        "latents",
        "memory",
        "pair",
        "proposals",
        "simulation",
    },
    "ascent": {"compiled", "distributions", "memory", "steps"},
    "memory": set(),
    "slopes": set(),
    "semi": {"ascent", "compiled", "distributions", "memory", "slopes"},
    "frames": {"distributions", "families", "latents", "programs", "trace"},
    "optima": {
        "ascent",
        "compiled",
        "estimates",
        "families",
        "frames",
        "latents",
        "pair",
        "programs",
        "proposals",
        "semi",
        "trace",
    },
    "gaps": {
        "ais",
        "ascent",
        "brackets",
        "compiled",
        "data",
        "dependence",
        "estimates",
        "evaluation",
        "families",
        "frames",
        "latents",
        "memory",
        "optima",
        "pair",
        "prices",
        "programs",
        "report",
        "semi",
        "split",
        "trace",
    },
    "prices": {"ascent", "dependence", "memory", "pair", "trace"},
    "split": {"brackets", "estimates", "frames"},
    "inference_data": {"estimates", "split"},
    "report": {
        "checkpoint",
        "estimates",
        "inference_data",
        "lines",
        "pair",
        "plots",
        "prices",
        "split",
        "views",
    },
    "views": {
        "distributions",
        "evaluation",
        "frames",
        "generate",
        "latents",
        "pair",
        "plots",
        "split",
    },
    "lines": set(),
    "routes": {"families", "guides", "pair", "programs"},
    "courses": {"checkpoint", "estimates", "lines", "pair", "plots"},
    "training": {
        "courses",
        "data",
        "dependence",
        "estimates",
        "evidence",
        "families",
        "fit",
        "gaps",
        "history",
        "pair",
        "report",
        "routes",
    },
    "encoding": {"data", "dependence", "distributions", "pair", "programs", "trace"},
    "generate": {"distributions", "encoding", "evaluation", "pair", "programs", "trace"},
    "simulation": {"generate", "pair", "programs", "trace"},
    "uniformity": set(),
    "verdicts": {"uniformity"},
    "calibration": {
        "checkpoint",
        "compiled",
        "data",
        "dependence",
        "distributions",
        "estimates",
        "evaluation",
        "generate",
        "latents",
        "memory",
        "pair",
        "plots",
        "simulation",
        "trace",
        "uniformity",
        "verdicts",
    },
    "baselines": {"distributions", "families", "guides", "pair", "pairs"},
    "rulers": {"families", "latents", "memory", "pair", "programs", "trace"},
}
# The command line and the package itself stand above the others.
FRONT = {"cli", "__main__", "bayesvae"}


def module_of(file: Path) -> str:
    """The dotted name of a file inside the package, ``bayesvae`` for the package itself."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts) or "bayesvae"


MODULES = {module_of(file): file for file in sorted(ROOT.rglob("*.py"))}


def inside(name: str) -> str | None:
    """The module that a dotted name inside the package belongs to, None if it is outside."""
    if name != "bayesvae" and not name.startswith("bayesvae."):
        return None
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or "bayesvae"


def imported(tree: ast.Module) -> set[str]:
    """Modules of the package that a syntax tree imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {inside(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            found |= {inside(f"{node.module}.{alias.name}") for alias in node.names}
    return found - {None}


IMPORTS = {name: imported(ast.parse(file.read_text())) for name, file in MODULES.items()}


def part(module: str) -> str:
    """The file or folder right under the package."""
    return module.split(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_the_design_lets_it(module):
    own = part(module)
    if own in FRONT:
        return
    assert own in MAY_IMPORT, f"{module} is new: give it a row in MAY_IMPORT"
    beyond = {part(other) for other in IMPORTS[module]} - MAY_IMPORT[own] - {own}
    assert not beyond, f"{module} may not import {sorted(beyond)}"


def test_only_the_command_line_imports_the_command_line():
    importers = {module for module, others in IMPORTS.items() if "cli" in map(part, others)}
    assert {part(module) for module in importers} <= {"cli", "__main__"}


def test_no_module_imports_itself_in_a_circle():
    # `bayesvae` itself is run before any of its modules, so that naming it closes no circle.
    edges = {
        module: {other for other in others if other not in (module, "bayesvae")}
        for module, others in IMPORTS.items()
    }
    assert list(TopologicalSorter(edges).static_order())


def test_the_rows_name_modules_that_exist():
    parts = {part(module) for module in MODULES}
    assert set(MAY_IMPORT) <= parts
    assert set.union(*MAY_IMPORT.values()) <= parts


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("from bayesvae import trace", {"trace"}),
        ("from bayesvae.trace import run", {"trace"}),
        ("from bayesvae.pairs import PPCA", {"pairs"}),
        ("import bayesvae.data", {"data"}),
        ("def f():\n    from bayesvae.cli import main", {"cli"}),
        ("from bayesvae import __version__", {"bayesvae"}),
        ("import torch\nfrom torch import nn", set()),
    ],
)
def test_the_parser_sees_every_form_of_import(source, modules):
    assert {part(module) for module in imported(ast.parse(source))} == modules


def test_the_compiler_is_imported_only_where_it_compiles():
    code = "import bayesvae, sys; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("package", [m for m, f in MODULES.items() if f.stem == "__init__"])
def test_every_name_that_a_package_offers_exists_once(package):
    loaded = importlib.import_module(f"bayesvae.{package}" if package != "bayesvae" else package)
    assert loaded.__all__, "a package says in __all__ what it offers"
    assert [name for name in loaded.__all__ if not hasattr(loaded, name)] == []
    assert len(loaded.__all__) == len(set(loaded.__all__))
