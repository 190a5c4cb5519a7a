"""Tests of the command line share a small run, and run as a user's process does."""

import numpy as np
import pytest
import torch
from commands import fit
from PIL import Image

TABLE = "a,b,c\n" + "".join(f"{i},{i * 0.7 - 3},{i % 5}\n" for i in range(40))


@pytest.fixture(autouse=True, scope="module")
def _float64_and_seed():
    """In place of the fixture of that name: a user's process has torch's default, float32."""
    assert torch.get_default_dtype() is torch.float32


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a small run, not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    assert fit(folder) == 0
    return folder


def files(folder):
    """Sound and broken data under short names."""
    rows = np.random.default_rng(0).normal(size=(30, 4))
    np.save(folder / "rows.npy", rows)
    np.save(folder / "one.npy", rows[:1])
    np.save(folder / "none.npy", rows[:0])
    np.save(folder / "flat.npy", rows[:, 0])
    np.save(folder / "words.npy", np.array([["a", "b"]] * 9))
    np.save(folder / "objects.npy", np.array([{"a": 1}] * 9), allow_pickle=True)
    np.save(folder / "holes.npy", np.where(rows > 1, np.nan, rows))
    np.savez(folder / "two.npz", first=rows, second=rows)
    (folder / "cut.npz").write_bytes((folder / "two.npz").read_bytes()[:200])
    (folder / "cut.npy").write_bytes((folder / "rows.npy").read_bytes()[:300])
    torch.save({"x": torch.randn(9, 3)}, folder / "rows.pt")
    (folder / "cut.pt").write_bytes((folder / "rows.pt").read_bytes()[:90])
    torch.save(torch.nn.Linear(2, 2), folder / "pickle.pt")
    (folder / "table.csv").write_text(TABLE)
    (folder / "words.csv").write_text(TABLE.replace("7,", "seven,", 1))
    (folder / "gap.csv").write_text(TABLE.replace("12,", ",", 1))
    (folder / "header.csv").write_text("a,b,c\n")
    (folder / "empty.csv").write_text("")
    (folder / "data.xyz").write_text("1 2 3")
    (folder / "not.yaml").write_text("epochs: [3\n")
    (folder / "list.yaml").write_text("- 3\n")
    (folder / "wrong.yaml").write_text("speed: 3\n")
    (folder / "bad_module.py").write_text("raise RuntimeError('no luck')\n")
    (folder / "my_module.py").write_text("import torch\nclass NoPrior: pass\n")
    (folder / "no_images").mkdir()
    for size, name in ((8, "a"), (9, "b")):
        (folder / "sizes" / name).mkdir(parents=True)
        Image.new("L", (size, size)).save(folder / "sizes" / name / "0.png")
    (folder / "broken" / "a").mkdir(parents=True)
    (folder / "broken" / "a" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (folder / "file").write_text("")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A current folder with sound and broken files, and no data sets."""
    folder = tmp_path / "place"
    folder.mkdir()
    files(folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("BAYESVAE_DATA", raising=False)
    return folder
