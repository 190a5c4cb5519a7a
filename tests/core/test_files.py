"""Checkpoints are whole or absent, and reading one runs no code."""

import json
import pickle

import pytest
import torch
from torch.testing import assert_close

from bayesvae.core import files

STATE = {
    "weight": torch.arange(6, dtype=torch.float64).reshape(2, 3),
    "half": torch.ones(2, dtype=torch.float16),
    "count": torch.tensor(3),
}


class Code:
    """Pickles as a call: unpickling it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).mkdir, (self.path,)


def test_state_comes_back_bit_for_bit(tmp_path):
    files.save_state(tmp_path / "a" / "b" / "state.pt", STATE)
    back = files.load_state(tmp_path / "a" / "b" / "state.pt")
    assert back.keys() == STATE.keys()
    assert all(torch.equal(back[name], STATE[name]) for name in STATE)
    assert [value.dtype for value in back.values()] == [v.dtype for v in STATE.values()]


def test_parameters_are_saved_as_what_they_hold(tmp_path):
    layer = torch.nn.Linear(2, 3)
    files.save_state(str(tmp_path / "state.pt"), layer.state_dict())
    other = torch.nn.Linear(2, 3)
    other.load_state_dict(files.load_state(str(tmp_path / "state.pt")))
    assert torch.equal(layer.weight, other.weight)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failing_write_leaves_the_old_file_and_no_debris(tmp_path, error):
    path = tmp_path / "state.pt"
    files.save_state(path, STATE)
    before = path.read_bytes()

    def half(aside):
        aside.write_bytes(before[: len(before) // 2])
        raise error

    with pytest.raises(error):
        files.write_aside(path, half)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_first_write_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        files.save_json(tmp_path / "content.json", {"set": {1, 2}})
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        files.save_state(tmp_path / "state.pt", {"function": lambda: None})
    assert list(tmp_path.iterdir()) == []


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "text"
    path.write_text("old")

    def write(aside):
        aside.write_text("new")
        assert aside.parent == path.parent  # A rename across file systems would be a copy.
        assert path.read_text() == "old"

    files.write_aside(path, write)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def plain_pickle(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", [torch.save, plain_pickle])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, save):
    path, harm = tmp_path / "state.pt", tmp_path / "harm"
    save({"weight": Code(harm)}, path)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        files.load_state(path)
    assert not harm.exists()
    torch.load(path, weights_only=False) if save is torch.save else pickle.loads(path.read_bytes())
    assert harm.exists(), "the file would have been harmless to a careless reader"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_said_to_be_so(tmp_path, share):
    path = tmp_path / "state.pt"
    files.save_state(path, STATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="may be cut short"):
        files.load_state(path)


@pytest.mark.parametrize(
    "content", [b"hello world\n", b"epoch,step\r\n1,10\r\n", b"0.", b"a.", b"H\x80\x48."]
)
def test_a_file_that_is_no_checkpoint_at_all_is_refused_in_the_same_words(tmp_path, content):
    path = tmp_path / "state.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        files.load_state(path)


@pytest.mark.parametrize("content", [[torch.ones(2)], {"epoch": 3}, torch.ones(2), {"a": {}}])
def test_what_is_no_state_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"tensors by name; .*state.pt holds something else"):
        files.load_state(tmp_path / "state.pt")


def test_a_missing_file_and_a_folder_are_said_to_be_no_file(tmp_path):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(FileNotFoundError, match="there is none at"):
            files.load_state(path)


def test_json_is_read_by_json(tmp_path):
    files.save_json(tmp_path / "content.json", {"rate": 0.1, "names": ["a", "ß"]})
    content = json.loads((tmp_path / "content.json").read_text())
    assert content == {"rate": 0.1, "names": ["a", "ß"]}


def test_no_bit_of_a_checkpoint_can_flip_unseen(tmp_path):
    """torch itself reads most damaged files without a word."""
    path = tmp_path / "state.pt"
    files.save_state(path, {"weight": torch.randn(20, 7), "bias": torch.zeros(3)})
    content = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    last = range(8 * (len(content) - 100), 8 * len(content))
    anywhere = torch.randint(8 * len(content), (300,), generator=generator).tolist()
    for bit in (*anywhere, *last):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|not a readable checkpoint"):
            files.load_state(path)


@pytest.mark.parametrize("cut", [1, 10, 71, 72, 73, 200])
def test_a_checkpoint_that_is_cut_short_is_refused(cut, tmp_path):
    path = tmp_path / "state.pt"
    files.save_state(path, {"weight": torch.randn(20, 7)})
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=r"damaged|not a readable checkpoint"):
        files.load_state(path)


def test_checkpoints_are_files_of_torch_and_those_of_earlier_versions_are_read(tmp_path):
    state = {"weight": torch.randn(20, 7)}
    files.save_state(tmp_path / "new.pt", state)
    assert_close(torch.load(tmp_path / "new.pt", weights_only=True), state, rtol=0.0, atol=0.0)
    torch.save(state, tmp_path / "old.pt")
    assert_close(files.load_state(tmp_path / "old.pt"), state, rtol=0.0, atol=0.0)
