"""Who may know whom: the model half knows no algorithm, the algorithms know no component."""

import ast
import configparser
import importlib
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bayesvae

ROOT = Path(bayesvae.__file__).parent

# What a folder may import, from the ground floor up; beside these, its own files.
MAY_IMPORT = {
    "compiler": "",
    "data": "",
    "networks": "",
    "core": "compiler data",
    "plots": "core",
    "objectives": "core",
    "families": "compiler core",
    "priors": "families",
    "likelihoods": "families",
    "guides": "core families",
    "pairs": "core families guides",
    "rulers": "core families",
    "generate": "core data",
    "training": "compiler core data objectives",
    "optima": "compiler core families guides",
    "evidence": "compiler core data families generate optima",
    "gaps": "compiler core data evidence families generate guides optima plots training",
    "diagnose": "compiler core data generate plots",
}
# The command line and the package itself stand above all of them.
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


def offered(folder: str) -> list[str]:
    """What a folder offers to others: names, and files that are public on purpose."""
    return importlib.import_module(f"bayesvae.{folder}").__all__


def part(module: str) -> str:
    """The file or folder right under the package."""
    return module.split(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_the_design_lets_it(module):
    own = part(module)
    if own in FRONT:
        return
    assert own in MAY_IMPORT, f"{own} is a new folder: give it a row in MAY_IMPORT"
    beyond = {part(other) for other in IMPORTS[module]} - set(MAY_IMPORT[own].split()) - {own}
    assert not beyond, f"{module} may not import {sorted(beyond)}"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_takes_from_another_folder_what_that_offers(module):
    hidden = {
        other
        for other in IMPORTS[module]
        if other.count(".") >= 1 and part(other) not in (part(module), "cli")
        if other.split(".")[1] not in offered(part(other))
    }
    assert not hidden, f"{module} imports {sorted(hidden)}; import what their folder offers"


def test_arrows_between_folders_go_one_way_and_are_few_floors_high():
    """Catches a folder that knows the one above it."""
    edges = {folder: set(below.split()) for folder, below in MAY_IMPORT.items()}
    floor = {}
    for folder in TopologicalSorter(edges).static_order():
        floor[folder] = 1 + max((floor[below] for below in edges[folder]), default=0)
    assert max(floor.values()) <= 8


@pytest.mark.parametrize("module", [m for m in MODULES if part(m) not in ("compiler", "cli")])
def test_only_the_compiler_reaches_into_torch_or_changes_what_is_global(module):
    text = MODULES[module].read_text()
    private, patches = r"torch(\.\w+)*\._|torch\.fx|_pytree", r"unittest|mock\b|validation_enabled"
    assert not re.search(f"{private}|{patches}", text)


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
    assert set(MAY_IMPORT) == parts - FRONT
    assert set(" ".join(MAY_IMPORT.values()).split()) <= parts


def test_the_architecture_page_and_every_folder_say_what_the_folder_is_for():
    page = (ROOT.parent / "docs" / "architecture.md").read_text()
    for folder in {*MAY_IMPORT, "cli"}:
        assert f"`{folder}/`" in page
        lines = (importlib.import_module(f"bayesvae.{folder}").__doc__ or "").splitlines()
        assert len(lines) >= 3, f"{folder}/__init__.py says in a paragraph what it is for"


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("from bayesvae.core import trace", {"core"}),
        ("from bayesvae.core.trace import run", {"core"}),
        ("from bayesvae.pairs import PPCA", {"pairs"}),
        ("import bayesvae.data", {"data"}),
        ("def f():\n    from bayesvae.cli import main", {"cli"}),
        ("from bayesvae import __version__", {"bayesvae"}),
        ("import torch\nfrom torch import nn", set()),
    ],
)
def test_the_parser_sees_every_form_of_import(source, modules):
    assert {part(module) for module in imported(ast.parse(source))} == modules


def fresh(code):
    """What a new process says, which has imported nothing yet."""
    run = [sys.executable, "-c", code]
    return subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()


def test_the_compiler_is_imported_only_where_it_compiles():
    code = "import bayesvae, sys; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_draws_reads_or_parses_is_imported_only_where_it_does():
    """Catches seconds of waiting for whoever only wants to train."""
    late = {"matplotlib", "sklearn", "torchvision", "jsonargparse", "arviz", "pandas"}
    loaded = fresh("import bayesvae, sys; print(*{name.split('.')[0] for name in sys.modules})")
    assert "pyro" in loaded
    assert not late & set(loaded)


@pytest.mark.parametrize("first", ["import bayesvae.plots.posterior_contours", "pass"])
def test_pictures_are_there_when_they_are_asked_for(first):
    """Catches a file that hides the picture of its name once it is imported."""
    shown = "print(*(name for name in plots.__all__ if hasattr(getattr(plots, name), '__doc__')))"
    found = fresh(f"{first}; from bayesvae import plots; {shown}")
    assert found == bayesvae.plots.__all__
    kinds = fresh(f"{first}; from bayesvae import plots; print(callable(plots.posteriors))")
    assert kinds == ["True"]


def test_pictures_are_named_alike_for_those_who_run_and_those_who_read():
    tree = ast.parse(MODULES["plots"].read_text())
    files = {module.split(".")[-1] for module in IMPORTS["plots"]}
    block = next(node for node in tree.body if isinstance(node, ast.If))
    read = [alias.name for each in block.body for alias in each.names]
    assert sorted(read) == sorted(bayesvae.plots.__all__)
    assert not files & set(read), "a picture has the name of a file"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bayesvae.plots.nothing


def test_the_version_is_one_everywhere():
    changes = (ROOT.parent / "README.md").read_text().partition("## Changes")[2]
    assert re.search(r"\*\*(\d+\.\d+\.\d+)\*\*", changes)[1] == bayesvae.__version__
    assert fresh("from bayesvae.cli import main; main(['--version'])") == [
        "bayesvae",
        bayesvae.__version__,
    ]


def test_types_are_installed_with_the_package():
    settings = configparser.ConfigParser()
    settings.read(ROOT.parent / "setup.cfg")
    assert (ROOT / "py.typed").is_file()
    assert settings["options.package_data"]["bayesvae"] == "py.typed"


@pytest.mark.parametrize("package", [m for m, f in MODULES.items() if f.stem == "__init__"])
def test_every_name_that_a_package_offers_exists_once(package):
    loaded = importlib.import_module(f"bayesvae.{package}" if package != "bayesvae" else package)
    assert loaded.__all__, "a package says in __all__ what it offers"
    assert [name for name in loaded.__all__ if not hasattr(loaded, name)] == []
    assert len(loaded.__all__) == len(set(loaded.__all__))
