"""Stores: whole or absent, the right bytes or an error, and how they are read."""

import json
import os

import pytest
import torch

import workbench.offload.store.expert_store as module
from workbench.core.records import ExpertKey
from workbench.offload.store.blocks import parts_of
from workbench.offload.store.expert_store import DamagedExpert, ExpertStore, write_store


def page_of(number: int) -> list[torch.Tensor]:
    return [torch.full((3,), float(number))]


def write(folder, pages, *, layers: int = 1, experts: int = 2, source: str = "a") -> None:
    shape = parts_of(page_of(0))
    keys = ((ExpertKey(*divmod(page, experts)), page_of(page)) for page in pages)
    write_store(folder, keys, shape, num_layers=layers, num_experts=experts, source=source)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refuse_direct(monkeypatch) -> None:
    real = os.open

    def without_direct(path, flags, *rest, **options):
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(module.os, "open", without_direct)


def read(store: ExpertStore, page: int) -> memoryview:
    buffer = store.buffer()
    store.read(page, [buffer])
    store.check(page, [buffer])
    return buffer


@pytest.mark.parametrize("has_direct", [True, False])
def test_every_page_is_read_as_it_was_written(make_store, monkeypatch, has_direct):
    if not has_direct:
        refuse_direct(monkeypatch)
    store = make_store()
    for page in range(8):
        found = torch.frombuffer(read(store, page), dtype=torch.float32, count=3072)
        assert found.tolist() == [page] * 2048 + [-page] * 1024
    assert has_direct or not store.is_direct
    said = "from the disk itself (O_DIRECT)" if store.is_direct else "told to forget each block (no O_DIRECT here)"
    assert said in store.way and said in store._repr_html_()


def test_where_the_cache_cannot_be_told_to_forget_it_is_said(make_store, monkeypatch):
    refuse_direct(monkeypatch)
    monkeypatch.delattr(module.os, "posix_fadvise")
    store = make_store()
    assert store.way == "through the page cache (no O_DIRECT here): what was read before may come from memory"
    assert read(store, 3)[:4] == torch.tensor([3.0]).numpy().tobytes()


def test_what_was_read_leaves_the_page_cache(make_store, monkeypatch):
    refuse_direct(monkeypatch)
    told = []
    real = os.posix_fadvise
    monkeypatch.setattr(module.os, "posix_fadvise", lambda *call: told.append(call[1:]) or real(*call))
    store = make_store()
    read(store, 2)
    assert told == [(2 * 12288, 12288, os.POSIX_FADV_DONTNEED)]


def test_a_piece_of_a_block_begins_where_it_is_told(make_store):
    store = make_store()
    buffer = store.buffer()
    store.read(5, [buffer[:4096]], 8192)
    assert torch.frombuffer(buffer, dtype=torch.float32, count=1024).unique().tolist() == [-5.0]


def test_a_store_of_other_weights_is_refused(tmp_path):
    write(tmp_path / "store", range(2))
    with pytest.raises(ValueError, match=r"holds the experts of a, expected those of b; remove the folder"):
        ExpertStore(tmp_path / "store", source="b")
    ExpertStore(tmp_path / "store").close()
    with pytest.raises(FileNotFoundError, match=r"holds no experts.json; convert a checkpoint first"):
        ExpertStore(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "moe-workbench.experts/9"}, r"must have format 'moe-workbench.experts/1', got '.*/9'"),
        ({"parts": [{}]}, r"experts.json is damaged \(KeyError"),
        ({"parts": [3]}, r"experts.json is damaged \(Type"),
        ({"num_layers": "many"}, r"experts.json is damaged \(ValueError"),
        ({"checksums": ["zz", "0"]}, r"experts.json is damaged \(ValueError"),
        ({"checksums": None}, r"experts.json is damaged \(TypeError"),
        ({"checksums": ["0"]}, r"must have 8192 bytes for 2 experts, got 8192; it was cut short or changed"),
        ({"num_experts": 3}, r"must have 12288 bytes for 3 experts, got 8192"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, changes, message):
    write(tmp_path / "store", range(2))
    file = tmp_path / "store" / "experts.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        ExpertStore(tmp_path / "store")


def test_a_manifest_that_is_no_json_or_lacks_something_is_refused(tmp_path):
    write(tmp_path / "store", range(2))
    file = tmp_path / "store" / "experts.json"
    whole = json.loads(file.read_text())
    del whole["about"]
    for text, message in ((file.read_text()[:50], "is damaged"), (json.dumps(whole), "lacks about")):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            ExpertStore(tmp_path / "store")


@pytest.mark.parametrize("change", ["truncate", "remove"])
def test_data_that_were_cut_short_or_are_gone_are_refused(tmp_path, change):
    write(tmp_path / "store", range(2))
    data = tmp_path / "store" / "experts.bin"
    os.truncate(data, 5000) if change == "truncate" else data.unlink()
    left = 5000 if change == "truncate" else 0
    with pytest.raises(ValueError, match=rf"must have 8192 bytes for 2 experts, got {left}; it was cut short"):
        ExpertStore(tmp_path / "store")


def test_one_flipped_bit_names_the_expert(tmp_path):
    write(tmp_path / "store", range(4), layers=2)
    data = tmp_path / "store" / "experts.bin"
    damaged = bytearray(data.read_bytes())
    damaged[3 * 4096 + 7] ^= 1
    data.write_bytes(damaged)
    store = ExpertStore(tmp_path / "store")
    read(store, 2)
    with pytest.raises(
        DamagedExpert, match=r"expert 1 of layer 1 in .*experts.bin is damaged \(its checksum differs\)"
    ):
        read(store, 3)
    store.close()
    store.close()


def test_the_padding_is_nobodys_business(tmp_path):
    write(tmp_path / "store", range(2))
    data = tmp_path / "store" / "experts.bin"
    damaged = bytearray(data.read_bytes())
    damaged[12] ^= 1
    data.write_bytes(damaged)
    store = ExpertStore(tmp_path / "store")
    read(store, 0)
    store.close()


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([0], r"1 layers of 2 experts were announced, 1 experts came"),
        ([0, 1, 2], r"1 layers of 2 experts were announced, 3 experts came"),
        ([1, 0], r"in the order of layers and experts, got .*expert=1.* at place 0"),
    ],
)
def test_experts_that_are_missing_or_out_of_order_leave_no_store(tmp_path, pages, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "store", pages)
    assert names(tmp_path) == []


def test_a_store_takes_the_place_of_another_when_it_is_whole(tmp_path):
    write(tmp_path / "store", range(2))
    with pytest.raises(ValueError, match="announced"):
        write(tmp_path / "store", range(1), source="b")
    ExpertStore(tmp_path / "store", source="a").close()
    write(tmp_path / "store", range(2), source="b")
    ExpertStore(tmp_path / "store", source="b").close()
    assert names(tmp_path) == ["store"]


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds notes.txt, which is no part of a store; choose another folder"):
        write(tmp_path, range(2))
    assert names(tmp_path) == ["notes.txt"]


def test_what_killed_conversions_left_is_cleared_away(tmp_path):
    # a process that is gone, this one in an earlier life, and one that still works.
    for number in (2**22 + 1, os.getpid(), 1):
        (tmp_path / f".store.part-{number}").mkdir()
        (tmp_path / f".store.part-{number}" / "experts.bin").write_bytes(b"half")
    write(tmp_path / "store", range(2))
    assert names(tmp_path) == [".store.part-1", "store"]
