"""What the README and its pages show is what runs, and what they point to is there."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))
}
BLOCKS = {
    page: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for page, text in PAGES.items()
}
SHOWN = {
    "fifteen lines": ("README.md", 0),
    "own pair": ("README.md", 1),
    "svi": ("docs/compiled.md", 0),
    "sides": ("docs/evidence.md", 0),
}
ELSEWHERE = {("docs/command-line.md", 0): "tests/cli/test_own.py"}
"""Code that is tested where it is used."""


@pytest.mark.usefixtures("_float64_and_seed")
@pytest.mark.filterwarnings("ignore:k-hat:UserWarning")
@pytest.mark.parametrize("block", SHOWN)
def test_the_code_of_the_readme_runs(block, tmp_path, monkeypatch, capsys):
    page, number = SHOWN[block]
    torch.set_default_dtype(torch.float32)
    monkeypatch.chdir(tmp_path)
    short = BLOCKS[page][number].replace("epochs=200", "epochs=2").replace("[:300]", "[:8]")
    exec(compile(short, page, "exec"), {})
    assert re.search("amortization gap|log-density|loss|width", capsys.readouterr().out)


def test_all_code_that_is_shown_is_run():
    run = {*SHOWN.values(), *ELSEWHERE}
    assert run == {(page, i) for page, blocks in BLOCKS.items() for i in range(len(blocks))}
    for (page, _), test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text()


def test_every_picture_and_notebook_that_is_shown_is_there():
    links = re.findall(r"\]\((tutorials/[^)]+)\)", README)
    assert {Path(link).suffix for link in links} == {".png", ".ipynb"}
    assert all((ROOT / link).is_file() for link in links)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", PAGES[page])
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).is_file()] == []


def test_every_page_is_found_from_the_readme():
    linked = set(re.findall(r"\]\(((?:docs/|CONTRIBUTING)[^)#]*)\)", README))
    assert linked == set(PAGES) - {"README.md"}


def test_a_newcomer_reads_a_readme_of_at_most_250_lines():
    assert len(README.splitlines()) <= 250


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if " ± " in text])
def test_what_was_measured_is_beside_the_command_that_measures_it_again(page):
    """Of each section with figures: a benchmark, or the commands."""
    for section in re.split(r"(?m)^#+ ", PAGES[page]):
        if " ± " in section:
            assert re.search(r"python -m benchmarks\.\w+|make bench|\n    bayesvae ", section)


def test_fifteen_lines_are_about_fifteen():
    assert len([line for line in BLOCKS["README.md"][0].splitlines() if line.strip()]) <= 16


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
