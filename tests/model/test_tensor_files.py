"""Files that are damaged, missing or cannot be written, and what the reader is told."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.model.tensor_files import (
    TensorFiles,
    read_json,
    write_json,
    write_shards,
    write_tensors,
    written_beside,
)

TENSORS = {"a": torch.arange(12.0).view(3, 4), "b": torch.ones(5, dtype=torch.bfloat16), "c": torch.zeros(2, 2)}
INDEX = "model.safetensors.index.json"


@pytest.fixture(params=["one file", "shards"])
def folder(request, tmp_path):
    write_shards(tmp_path, TENSORS, 10_000 if request.param == "one file" else 50)
    return tmp_path


def test_tensors_come_back_from_one_file_and_from_shards(folder):
    with TensorFiles(folder) as files:
        assert files.names() == set(TENSORS)
        for name, tensor in TENSORS.items():
            assert torch.equal(files.read(name), tensor)
            assert (files.shape(name), files.dtype(name)) == (tensor.shape, tensor.dtype)
        assert "a" in files and "d" not in files


def test_shards_hold_at_most_the_bytes_asked_for_and_keep_the_order(tmp_path):
    tensors = {f"t{i}": torch.full((n,), float(i)) for i, n in enumerate([3, 2, 9, 1, 1, 1, 4])}
    write_shards(tmp_path, tensors, 20)
    index = json.loads((tmp_path / INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert shards == [f"model-{i:05d}-of-00004.safetensors" for i in range(1, 5)]
    held = [list(load_file(tmp_path / shard)) for shard in shards]
    assert held == [["t0", "t1"], ["t2"], ["t3", "t4", "t5"], ["t6"]]
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())


def test_views_of_one_tensor_are_written_apart(tmp_path):
    whole = torch.arange(24.0).view(2, 3, 4)
    write_tensors(tmp_path / "x", {"first": whole[0, :2], "second": whole[1], "column": whole[:, :, 1]})
    back = load_file(tmp_path / "x")
    assert torch.equal(back["first"], whole[0, :2]) and torch.equal(back["column"], whole[:, :, 1])


@pytest.mark.parametrize("keep", [0, 4, 30, -1])
def test_a_truncated_file_is_named(folder, keep):
    file = sorted(folder.glob("*.safetensors"))[-1]
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(
        ValueError, match=r"is damaged or truncated .* bytes\); copy it again from its source"
    ) as caught:
        TensorFiles(folder)
    assert str(file) in str(caught.value)


def test_a_file_of_something_else_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(ValueError, match=r"model.safetensors is damaged or truncated"):
        TensorFiles(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    write_shards(tmp_path, TENSORS, 50)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks 1 of the 2 shards .* first model-00002-of-00002.safetensors; copy"
    ):
        TensorFiles(tmp_path)


def test_a_shard_without_a_tensor_it_should_have_is_named(tmp_path):
    write_shards(tmp_path, TENSORS, 50)
    last = tmp_path / "model-00002-of-00002.safetensors"
    save_file({"b": TENSORS["b"]}, last)
    with pytest.raises(ValueError, match=f"{last} has no c, which {INDEX} says it has"):
        TensorFiles(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[]", "must hold a JSON object, got list"),
        ("{}", "needs a 'weight_map' from tensor names to files of the same folder"),
        ('{"weight_map": {"a": "../elsewhere.safetensors"}}', "files of the same folder"),
    ],
)
def test_a_damaged_index_is_named(tmp_path, text, message):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        TensorFiles(tmp_path)
    assert str(tmp_path / INDEX) in str(caught.value)


def test_a_folder_without_weights_says_what_is_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"holds neither model.safetensors nor {INDEX}"):
        TensorFiles(tmp_path)


def test_pickled_weights_are_not_opened(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(
        ValueError, match=r"holds pytorch_model.bin but no model.safetensors; pickled weights can run code"
    ):
        TensorFiles(tmp_path)


@pytest.mark.parametrize(("dtype", "stored"), [(torch.float8_e4m3fn, "F8_E4M3"), (torch.int8, "I8")])
def test_quantised_weights_are_refused_by_name(tmp_path, dtype, stored):
    save_file({"w": torch.zeros(4).to(dtype)}, tmp_path / "model.safetensors")
    with TensorFiles(tmp_path) as files, pytest.raises(ValueError, match=f"w in .* is stored as {stored}; quantised"):
        files.dtype("w")


def test_what_was_there_stays_until_the_new_one_is_whole(tmp_path):
    file = tmp_path / "state.json"
    write_json(file, {"step": 1})
    with pytest.raises(KeyboardInterrupt), written_beside(file) as part:
        write_json(part, {"step": 2})
        raise KeyboardInterrupt
    assert read_json(file) == {"step": 1}
    with written_beside(file) as part:
        write_json(part, {"step": 2})
        assert read_json(file) == {"step": 1}
    assert read_json(file) == {"step": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_a_full_disk_leaves_the_earlier_file_intact(tmp_path, full_disk):
    file = tmp_path / "model.safetensors"
    write_tensors(file, {"a": torch.ones(10)})
    before = file.read_bytes()
    message = f"could not write {file} .*File too large.*; the earlier model.safetensors is intact; free some space"
    with full_disk(2000), pytest.raises(OSError, match=message), written_beside(file) as part:
        write_tensors(part, {"a": torch.ones(10_000)})
    assert file.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_nothing_of_a_new_folder(tmp_path, full_disk):
    folder = tmp_path / "export"
    with full_disk(2000), pytest.raises(OSError, match=r"nothing was left behind"), written_beside(folder) as part:
        part.mkdir()
        write_json(part / "config.json", {})
        write_tensors(part / "model.safetensors", {"a": torch.ones(10_000)})
    assert list(tmp_path.iterdir()) == []
