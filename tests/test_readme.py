"""What the README and its pages show is what runs, and what they point to is there."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
}
README = PAGES["README.md"]
BLOCKS = {
    page: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for page, text in PAGES.items()
}
SHOWN = {
    "fifteen lines": ("README.md", 0),
    "own pair": ("README.md", 1),
    "svi": ("docs/compiled.md", 0),
    "sides": ("docs/evidence.md", 0),
}
"""Blocks that print what is asked for, by page and position."""
OTHERS = [
    (page, position)
    for page, blocks in BLOCKS.items()
    for position in range(len(blocks))
    if (page, position) not in SHOWN.values()
]
COMMAND = r"(?:`|^ {4})(?:make (\w+)|python -m benchmarks\.(\w+))|^ {4}bayesvae \w+"
"""A command in a line of its own, or between backticks if it is not one of `bayesvae`."""


def run(page, position):
    short = BLOCKS[page][position].replace("epochs=200", "epochs=2").replace("[:300]", "[:8]")
    exec(compile(short, page, "exec"), {})


def links(page):
    """The files that a page links, as paths from the root; those on the web left out."""
    found = re.findall(r"\]\((?![a-z]+:)([^)#\s]+)", PAGES[page])
    folder = (ROOT / page).parent
    return {(folder / link).resolve().relative_to(ROOT.resolve()).as_posix() for link in found}


def sections(page):
    """The text under each heading, code in fences left out."""
    return re.split(r"(?m)^#+ ", re.sub(r"(?ms)^```.*?^```", "", PAGES[page]))


def is_measured(section):
    """Whether it has figures with an error, or a table of decimal numbers."""
    return re.search(r" (±|\+-) |^\|.*\| [+-]?\d+\.\d+ ", section, re.MULTILINE)


MEASURED = [page for page in PAGES if any(map(is_measured, sections(page)))]


@pytest.mark.usefixtures("_float64_and_seed")
@pytest.mark.filterwarnings("ignore:k-hat:UserWarning")
@pytest.mark.parametrize("block", SHOWN.values(), ids=SHOWN)
def test_the_code_of_the_readme_runs(block, tmp_path, monkeypatch, capsys):
    torch.set_default_dtype(torch.float32)
    monkeypatch.chdir(tmp_path)
    run(*block)
    assert re.search("amortization gap|log-density|loss|width", capsys.readouterr().out)


@pytest.mark.usefixtures("_float64_and_seed")
@pytest.mark.parametrize("block", OTHERS, ids=lambda block: f"{block[0]} {block[1]}")
def test_all_other_code_that_is_shown_runs(block, tmp_path, monkeypatch):
    """Catches a block that was added, or whose imports have moved."""
    torch.set_default_dtype(torch.float32)
    monkeypatch.chdir(tmp_path)
    run(*block)


def test_every_picture_and_notebook_that_is_shown_is_there():
    links = re.findall(r"\]\((tutorials/[^)]+)\)", README)
    assert {Path(link).suffix for link in links} == {".png", ".ipynb"}
    assert all((ROOT / link).is_file() for link in links)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(page):
    assert [link for link in sorted(links(page)) if not (ROOT / link).is_file()] == []


@pytest.mark.parametrize("start", ["README.md", "docs/README.md"])
def test_every_page_is_linked(start):
    """Catches a page that nobody would find."""
    assert set(PAGES) - {"README.md", "docs/README.md"} <= links(start)


def test_a_newcomer_has_at_most_250_lines_to_read():
    assert len(README.splitlines()) <= 250


@pytest.mark.parametrize("page", MEASURED)
def test_what_was_measured_stands_beside_a_command_that_repeats_it(page):
    for section in filter(is_measured, sections(page)):
        assert re.search(COMMAND, section, re.MULTILINE), section.splitlines()[0]


def test_figures_are_found():
    """Catches figures written otherwise, with which the test above would be empty."""
    pages = {"README.md"} | {f"docs/{name}.md" for name in ("evidence", "gaps", "priors", "speed")}
    assert set(MEASURED) == pages


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_exist(page):
    """Catches a benchmark or a target that was renamed."""
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    benchmarks = {path.stem for path in (ROOT / "benchmarks").iterdir()}
    for target, benchmark in re.findall(COMMAND, PAGES[page], re.MULTILINE):
        assert not target or target in targets
        assert not benchmark or benchmark in benchmarks


def test_fifteen_lines_are_about_fifteen():
    page, position = SHOWN["fifteen lines"]
    assert len([line for line in BLOCKS[page][position].splitlines() if line.strip()]) <= 16


def test_the_table_of_components_names_every_part():
    """Catches a part that was added and not shown."""
    from bayesvae import families, guides, likelihoods, networks, pairs, priors
    from bayesvae.cli.parts import classes

    for home in (families, guides, likelihoods, networks, priors):
        for name in classes(home):
            if not name.startswith(("Likelihood", "Family")):
                assert re.search(rf"\| .*`(\w+\.)?{name}`", README), f"{home.__name__}.{name}"
    for name in ("vae", "hierarchical", "ppca"):
        assert hasattr(pairs, name)
        assert f"`pairs.{name}`" in README
