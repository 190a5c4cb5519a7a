"""What the README shows is what runs."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.usefixtures("_float64_and_seed")
@pytest.mark.filterwarnings("ignore:k-hat:UserWarning")
@pytest.mark.parametrize("block", BLOCKS[:4], ids=["fifteen lines", "own pair", "svi", "sides"])
def test_the_code_of_the_readme_runs(block, tmp_path, monkeypatch, capsys):
    torch.set_default_dtype(torch.float32)
    monkeypatch.chdir(tmp_path)
    short = block.replace("epochs=200", "epochs=2").replace("[:300]", "[:8]")
    exec(compile(short, "README.md", "exec"), {})
    assert re.search("amortization gap|log-density|loss|width", capsys.readouterr().out)


def test_every_picture_and_notebook_that_is_shown_is_there():
    links = re.findall(r"\]\((tutorials/[^)]+)\)", README)
    assert {Path(link).suffix for link in links} == {".png", ".ipynb"}
    assert all((ROOT / link).is_file() for link in links)


def test_fifteen_lines_are_about_fifteen():
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 16


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
