"""A file of one's own is read as it is meant, or refused in words."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from bayesvae import data
from bayesvae.data import raw

N = 10
ROWS = np.arange(2.0 * N).reshape(N, 2)
BYTES = np.arange(N * 12).reshape(N, 4, 3).astype("u1")
KINDS = np.arange(N) % 3
WORDS = np.array(["ape", "bee", "cat"])[KINDS]


def saved(folder, name, content):
    """Write an array, a dict of arrays, or text, to a file of the format that its name says."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix in (".pt", ".pth"):
        torch.save(content, path)
    else:
        path.write_text(content)
    return path


def tensors(arrays):
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def table(delimiter=",", header="", words=None):
    lines = [delimiter.join(map(str, row)) for row in ROWS]
    if words is not None:
        lines = [f"{line}{delimiter}{word}" for line, word in zip(lines, words, strict=True)]
    return "\n".join([*([header] if header else []), *lines, ""])


# The same rows, as every format may have them.
SAME = {
    "npy": ("x.npy", ROWS, {}),
    "npy, column-major": ("x.npy", np.asfortranarray(ROWS), {}),
    "npy, big-endian": ("x.npy", ROWS.astype(">f4"), {}),
    "npz": ("x.npz", {"anything": ROWS}, {}),
    "npz, by name": ("x.npz", {"a": ROWS + 1, "X": ROWS}, {}),
    "npz, chosen": ("x.npz", {"a": ROWS, "x": ROWS + 1}, {"array": "a"}),
    "npz, one of a split": ("x.npz", {"x_train": ROWS, "x_test": ROWS + 1}, {"array": "x_train"}),
    "npz, beside vectors": ("x.npz", {"ids": KINDS, "a": ROWS, "words": WORDS}, {}),
    "pt": ("x.pt", torch.from_numpy(ROWS), {}),
    "pt, half": ("x.pth", torch.from_numpy(ROWS).bfloat16(), {}),
    "pt, parameter": ("x.pt", torch.nn.Parameter(torch.from_numpy(ROWS)), {}),
    "pt, dict": ("x.pt", {"a": torch.from_numpy(ROWS), "note": "words"}, {}),
    "pt, tuple": ("x.pt", (torch.from_numpy(ROWS), torch.zeros(3)), {}),
    "csv": ("x.csv", table(), {}),
    "csv, header": ("x.csv", table(header="a,b"), {}),
    "csv, header with blanks": ("x.CSV", "\ufeff\n" + table(", ", '"a, b", c'), {}),
    "csv, empty lines": ("x.csv", table().replace("\n", "\n\n"), {}),
    "csv, Windows": ("x.csv", table(header="a,b").replace("\n", "\r\n"), {}),
    "csv, quoted numbers": ("x.csv", table().replace("\n4.0", '\n"4.0"'), {}),
    "tsv": ("x.tsv", table("\t", "width, mm\theight; mm"), {}),
    "semicolons": ("x.txt", table(";", '"a,b";c'), {}),
    "blanks": ("x.txt", table(" "), {}),
    "aligned by blanks": ("x.txt", "  " + table("   ").replace("\n", "  \n  "), {}),
    "numpy's header": ("x.txt", table(" ", "# a b"), {}),
    "words left out": ("x.csv", table(words=WORDS), {"columns": [0, 1]}),
    "by name": ("x.csv", table(header="a,b,c", words=WORDS), {"columns": ["a", "b"]}),
    "by number in words": ("x.csv", table(words=WORDS), {"columns": ["0", "-2"]}),
    "comment": ("x.csv", "# made by me, 2024\n\n" + table(), {}),
    "comment, header": ("x.csv", "# made by me, 2024\n" + table(header="a,b"), {}),
    "comments, numpy's header": ("x.csv", "# made by me\n#\n" + table(",", "# a,b"), {}),
    "delimiter at the end": ("x.csv", table(header="a,b").replace("\n", ",\n"), {}),
    "delimiters at the end": ("x.csv", table(",").replace("\n", ",,\n"), {}),
    "true and false": ("x.csv", table(header="a,b").replace("0.0,1.0", "False,TRUE"), {}),
    "one of two by number": ("x.csv", table(header="a,b,a", words=WORDS), {"columns": [0, 1]}),
    "years for names": ("x.csv", table(header="kind,1990", words=None), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_every_format_gives_the_same_rows_and_the_same_split(name, tmp_path):
    file, content, options = SAME[name]
    path = saved(tmp_path, file, content)
    whole = data.read(path, test=0, **options)
    assert torch.equal(whole.train, torch.from_numpy(ROWS))
    assert (whole.test, whole.train_labels) == (None, None)
    splits = data.read(str(path), **options)
    assert splits.train[:, 0].tolist() == [4, 16, 8, 18, 2, 12, 14, 6]
    assert splits.test.tolist() == [[0, 1], [10, 11]], "files must be split alike for ever"
    assert splits.train.dtype == torch.float64


@pytest.mark.parametrize("name", SAME)
def test_what_is_too_large_for_memory_comes_by_batches_with_the_same_split(
    name, tmp_path, monkeypatch
):
    file, content, options = SAME[name]
    path = saved(tmp_path, file, content)
    small = data.read(path, divide=2, **options)
    monkeypatch.setattr(raw, "IN_MEMORY", ROWS.nbytes - 1)
    large = data.read(path, divide=2, **options)
    assert isinstance(large.train, data.Mapped)
    for left, right in zip(small[:2], large[:2], strict=True):
        assert torch.equal(left, right.read())


LABELLED = {
    "npz": ("x.npz", {"images": ROWS, "y": KINDS, "n": KINDS[:3]}, {}),
    "npz, column": ("x.npz", {"a": ROWS, "labels": KINDS[:, None]}, {}),
    "npz, chosen": ("x.npz", {"a": ROWS, "kind": KINDS, "y": 1 - KINDS}, {"labels": "kind"}),
    "npz, chosen column": ("x.npz", {"a": ROWS, "k": KINDS[:, None]}, {"labels": "k"}),
    "npz, words": ("x.npz", {"a": ROWS, "target": WORDS}, {}),
    "npz, whole floats": ("x.npz", {"a": ROWS, "k": 1.0 * KINDS}, {"labels": "k"}),
    "npz, of this part": (
        "x.npz",
        {"x_train": 1 + ROWS, "x_test": ROWS, "y_train": 1 - KINDS, "y_test": KINDS},
        {"array": "x_test"},
    ),
    "pt": ("x.pt", tensors({"a": ROWS, "targets": KINDS}), {}),
    "pt, tuple": ("x.pt", [torch.from_numpy(ROWS), torch.from_numpy(KINDS)], {"labels": "1"}),
    "csv": ("x.csv", table(words=WORDS), {"labels": 2}),
    "csv, last": ("x.csv", table(words=KINDS), {"labels": -1}),
    "csv, by name": ("x.csv", table(header="a,b,kind", words=KINDS * 1.0), {"labels": "kind"}),
    "csv, comment": ("x.csv", "# by me\n" + table(words=WORDS), {"labels": 2}),
    "csv, of some": ("x.csv", table(words=WORDS), {"labels": 2, "columns": [0, 1, 2]}),
}


@pytest.mark.parametrize("name", LABELLED)
def test_labels_stay_with_their_rows_and_out_of_the_data(name, tmp_path):
    file, content, options = LABELLED[name]
    splits = data.read(saved(tmp_path, file, content), **options)
    for x, labels in ((splits.train, splits.train_labels), (splits.test, splits.test_labels)):
        assert x.shape[1] == 2
        assert labels.dtype == torch.int64
        assert labels.tolist() == (x[:, 0] / 2 % 3).tolist()
    assert splits.label_names == (("ape", "bee", "cat") if "ape" in str(content) else ())


@pytest.mark.parametrize(("top", "names"), [("# a,b\n", ("a", "b")), ("# by me, 2024, a\n", ())])
def test_a_comment_is_a_header_only_if_it_has_a_name_for_every_column(top, names, tmp_path):
    assert data.read(saved(tmp_path, "x.csv", top + table())).names == names


def test_true_and_false_are_words_where_they_are_classes(tmp_path):
    path = saved(tmp_path, "x.csv", table(words=KINDS > 0))
    splits = data.read(path, labels=2, test=0)
    assert splits.label_names == ("False", "True")
    assert splits.train_labels.tolist() == (KINDS > 0).tolist()


def test_columns_keep_their_names_in_the_order_asked_for(tmp_path):
    path = saved(tmp_path, "x.csv", table(header="a,b,kind", words=WORDS))
    assert data.read(path, labels="kind").names == ("a", "b")
    splits = data.read(path, columns=["b", 0], test=0)
    assert splits.names == ("b", "a")
    assert splits.train[1].tolist() == [3, 2]


@pytest.mark.parametrize("suffix", ["npz", "pt"])
@pytest.mark.parametrize(
    "names", [("train", "test"), ("x_train", "x_test"), ("train_x", "test_x")]
)
def test_a_ready_split_is_kept(suffix, names, tmp_path):
    arrays = dict(zip(names, (ROWS, ROWS[:3] + 0.5), strict=True))
    arrays |= {"y_train": KINDS, "y_test": KINDS[:3], "valid": ROWS, "classes": WORDS[:3]}
    if suffix == "pt":
        del arrays["classes"]
        arrays = tensors(arrays)
    splits = data.read(saved(tmp_path, f"x.{suffix}", arrays))
    assert splits.train.sum(0).tolist() == ROWS.sum(0).tolist()
    assert splits.test.tolist() == (ROWS[:3] + 0.5).tolist()
    assert splits.train_labels.tolist() == (splits.train[:, 0] / 2 % 3).tolist()
    assert splits.test_labels.tolist() == [0, 1, 2]
    assert splits.label_names == (() if suffix == "pt" else ("ape", "bee", "cat"))
    assert splits.hold_out(0.2)[1][:, 0].tolist() == [0, 10], "sorted data need shuffling"


COLOURED = BYTES[:, None] + np.arange(3, dtype="u1")[:, None, None]


def test_labels_of_the_training_part_are_not_taken_for_those_of_the_test_part(tmp_path):
    split = {"x_train": ROWS, "x_test": ROWS + 1, "kind": KINDS, "y_test": KINDS[:3]}
    splits = data.read(saved(tmp_path, "x.npz", split), labels="kind")
    assert splits.train_labels.tolist() == (splits.train[:, 0] / 2 % 3).tolist()
    assert splits.test_labels is None


def test_all_rows_come_in_the_order_of_the_file_and_of_a_ready_split_the_test_part(tmp_path):
    x, labels = data.read_rows(saved(tmp_path, "x.npz", {"x": ROWS, "y": KINDS}), divide=2)
    assert torch.equal(x, torch.from_numpy(ROWS) / 2)
    assert labels.tolist() == KINDS.tolist()
    split = {"x_train": ROWS, "x_test": ROWS + 1, "y_train": KINDS, "y_test": 2 - KINDS}
    x, labels = data.read_rows(saved(tmp_path, "y.npz", split))
    assert torch.equal(x, torch.from_numpy(ROWS) + 1)
    assert labels.tolist() == (2 - KINDS).tolist()


SHAPES = {
    "vectors of bytes": (BYTES[:, 0], {}, BYTES[:, 0]),
    "bytes": (BYTES, {}, BYTES[:, None] / 255),
    "bytes, dark at first": (BYTES - BYTES[:1], {}, (BYTES - BYTES[:1])[:, None] / 255),
    "bits": (BYTES % 2, {}, BYTES[:, None] % 2),
    "channels last": (np.moveaxis(COLOURED, 1, -1), {}, COLOURED / 255),
    "one channel last": (BYTES[..., None], {}, BYTES[:, None] / 255),
    "channels first": (COLOURED, {}, COLOURED / 255),
    "other scale": (BYTES, {"divide": 16}, BYTES[:, None] / 16),
    "scaled vectors": (BYTES[:, 0], {"divide": 255}, BYTES[:, 0] / 255),
    "numbers": (BYTES.astype(float), {}, BYTES[:, None]),
    "whole numbers": (BYTES.astype(int), {}, BYTES[:, None]),
    "volumes": (COLOURED[:, None], {}, COLOURED[:, None] / 255),
}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_images_have_channels_first_and_bytes_of_images_alone_are_divided(
    name, large, tmp_path, monkeypatch
):
    array, options, expected = SHAPES[name]
    if large:
        monkeypatch.setattr(raw, "IN_MEMORY", 1)
    x = data.read(saved(tmp_path, "x.npy", array), test=0, **options).train
    assert isinstance(x, data.Mapped) == large
    assert torch.equal(x[:].read() if large else x, torch.tensor(expected, dtype=torch.float64))


# Refusals ---------------------------------------------------------------------------------------


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.pt", "x.pth"])
def test_nothing_but_numbers_is_ever_unpickled(name, tmp_path):
    trap = np.array([[Trap(tmp_path / "sprung")]], dtype=object)
    content = {"x": trap, "labels": trap[0]} if name != "x.npy" else trap
    path = saved(tmp_path, name, content)
    with pytest.raises(ValueError, match="never unpickled"):
        data.read(path)
    pickle_alone = tmp_path / "y.npy"
    pickle_alone.write_bytes(pickle.dumps(trap))
    with pytest.raises(ValueError, match="no whole file"):
        data.read(pickle_alone)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.pt"])
@pytest.mark.parametrize("kept", [0, 5, 100, -7])
def test_a_truncated_file_is_named_instead_of_served(name, kept, tmp_path):
    content = {"x.npy": ROWS, "x.npz": {"x": ROWS}, "x.pt": torch.from_numpy(ROWS)}[name]
    path = saved(tmp_path, name, content)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"{name} is no whole file .*\. Save or copy it anew"):
        data.read(path)


def changed(row, column, value):
    array = ROWS.copy()
    array[row, column] = value
    return array


TWO = {"a": ROWS, "b": ROWS[:, :1]}
REFUSED = {
    "unknown suffix": ("x.parquet", "", {}, "images or one of .npy, .npz, .pt, .pth, .csv"),
    "several arrays": ("x.npz", TWO, {}, r"not say .* a float64 \(10, 2\); b .*with array=NAME"),
    "no rows": ("x.npz", {"a": KINDS, "b": KINDS}, {}, "which of its arrays are the data"),
    "no such array": ("x.npz", TWO, {"array": "c"}, "no array 'c'; it has a float64"),
    "no such labels": ("x.npz", TWO, {"array": "a", "labels": "c"}, "no array 'c'"),
    "labels too short": (
        "x.npz", {"a": ROWS, "k": KINDS[:3]}, {"labels": "k"}, "the 10 rows of 'a'; got 'k'"
    ),
    "labels between classes": (
        "x.npz", {"a": ROWS, "k": KINDS / 2}, {"labels": "k"}, "numbers or words; got float64"
    ),
    "parts of different shapes": (
        "x.npz", {"train": ROWS, "test": ROWS[:, :1]}, {}, "do not belong together"
    ),
    "no tensors": ("x.pt", {"a": 1}, {}, "or tuple of tensors; got dict"),
    "one dimension": ("x.npy", ROWS[0], {}, r"rows of data.*shape \(2,\)..*\(N, 1\)"),
    "no dimension": ("x.npy", ROWS[0, 0], {}, r"rows of data.*shape \(\)"),
    "empty": ("x.npy", ROWS[:0], {}, r"rows of data.*shape \(0, 2\)"),
    "empty in npz": ("x.npz", {"x": ROWS[:, :0]}, {}, r"rows of data.*shape \(10, 0\)"),
    "one row": ("x.npy", ROWS[:1], {}, "has 1 row; a split needs 2. Use test=0"),
    "NaN": ("x.npy", changed(3, 1, np.nan), {}, r"finite numbers; got 1 .*row 3, place \(1,\)"),
    "infinity": ("x.npz", {"x": changed(0, 0, -np.inf)}, {}, "got 1 that are NaN or inf.*row 0"),
    "other options": ("x.npy", ROWS, {"columns": [1]}, "columns says nothing .* takes none"),
    "options of images": ("x.csv", "", {"grey": True}, "grey says .* takes columns, labels"),
    "share": ("x.npy", ROWS, {"test": 1.0}, r"share of the rows in \[0, 1\); got 1.0"),
    "scale": ("x.npy", ROWS, {"divide": -1}, "divide needs a positive number .*; got -1"),
    "many arrays": (
        "x.npz", {f"a{i}": ROWS for i in range(60)}, {}, r"a7 float64 \(10, 2\) and 52 more. Ch"
    ),
    "sparse": ("x.pt", torch.eye(3).to_sparse(), {}, "dense numbers; got a sparse .*to_dense"),
    "sparse beside dense": (
        "x.pt", {"x": torch.eye(3).to_sparse(), "z": torch.eye(3)}, {}, "a sparse tensor, 'x'"
    ),
    "meta": ("x.pt", torch.empty(3, 2, device="meta"), {}, "got a meta .* no numbers"),
    "empty table": ("x.csv", " \n", {}, "is empty"),
    "header alone": ("x.csv", "a,b\n", {}, "no numbers below its header"),
    "no columns": ("x.csv", table(), {"columns": []}, "no numbers .* in the columns chosen"),
    "ragged": ("x.csv", "1,2\n\n3\n", {}, "1 cells in line 3 and 2 in its first"),
    "words": (
        "x.csv", table(header="a,b,kind", words=WORDS), {},
        "got 'ape' in line 2, column 'kind'. Leave the column out with columns=.*labels='kind'",
    ),
    "one word": ("x.csv", "1,2\n3,oops\n", {}, "got 'oops' in line 2, column '1'. Leave"),
    "missing": ("x.csv", "a,b\n1,2\n3,\n", {}, "got '' in line 3, column 'b'. Fill it in"),
    "missing at first": ("x.csv", "1,NA\n3,4\n", {}, "got 'NA' in line 1, column '1'. Fill"),
    "infinite cell": ("x.csv", "1,2\n3,inf\n", {}, "finite numbers; got 'inf' in line 2.*Remove"),
    "infinite first": ("x.csv", "-inf,2\n3,4\n", {}, "finite numbers; got '-inf' in line 1"),
    "line below comments": ("x.csv", "# a\n\n#b\n1,2\n3,x\n", {}, "got 'x' in line 5"),
    "comments alone": ("x.csv", "# a\n# b", {}, "is empty"),
    "more at the end": ("x.csv", "1,2,\n3,4,\n5,6,7\n", {}, "3 cells in line 3 and 2"),
    "same name": ("x.csv", table(header="a,a"), {}, "two columns called 'a'. .*number"),
    "same column": ("x.csv", table(header="a,b"), {"columns": ["b", 1]}, "once; got 'b' twice"),
    "missing class": ("x.csv", "1,a\n2,\n", {"labels": 1}, "in every line; got '' in line 2"),
    "decimal commas": ("x.csv", "1,5;2\n2,5;3\n", {}, "got '1,5' in line 1.*with a point"),
    "no such column": (
        "x.csv", table(header="a,b"), {"columns": ["c"]}, "'c'; it has columns 0 to 1: a, b"
    ),
    "column beyond": ("x.csv", table(), {"columns": [2]}, "column 2; .* 0 to 1: no names"),
    "two of that name": ("x.csv", table(header="a,a"), {"labels": "a"}, "no single column 'a'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_in_words(name, tmp_path):
    file, content, options, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as raised:
        data.read(saved(tmp_path, file, content), **options)
    assert str(tmp_path) in str(raised.value) or name in ("share", "scale")
    assert "\n" not in str(raised.value)


def test_numbers_that_are_not_real_are_refused(tmp_path):
    for array in (ROWS * 1j, WORDS[:, None]):
        with pytest.raises(TypeError, match=r"needs real numbers; got (complex128|<U3)"):
            data.read(saved(tmp_path, "x.npy", array))


def test_text_of_another_encoding_is_refused(tmp_path):
    (tmp_path / "x.csv").write_bytes("höhe,1\n1,2\n".encode("latin-1"))
    with pytest.raises(ValueError, match="no table in UTF-8"):
        data.read(tmp_path / "x.csv")


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "x.npy")):
        data.read(tmp_path / "x.npy")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".csv"])
@pytest.mark.parametrize("kind", ["pipe", "endless device"])
def test_what_could_be_read_for_ever_is_refused(suffix, kind, tmp_path):
    path = tmp_path / f"data{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        data.read(path)


def test_a_small_archive_of_large_arrays_takes_no_memory(tmp_path):
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as x,
    ):
        header = {"descr": "<f8", "fortran_order": False, "shape": (2**20, 2**10)}
        np.lib.format.write_array_header_1_0(x, header)
        x.write(bytes(2**20))
    with pytest.raises(ValueError, match=r"at most 2 GiB; .* take 8 GiB.*\.npy"):
        data.read(path)
