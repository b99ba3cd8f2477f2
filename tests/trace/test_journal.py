"""Blocks on disk, one file each."""

import numpy as np
import pytest

from workbench.trace.journal import Journal
from workbench.trace.schema import TEXT


def block(step):
    return {"run": {"step": np.array([step]), "domain": np.array(["prose, ü", ""], dtype=TEXT)}}


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path)
    for number in range(3):
        journal.append(number, block(number))
    return journal


def test_blocks_come_back_in_order_with_their_text(journal):
    found = journal.read(1)
    assert [piece["run"]["step"].tolist() for piece in found] == [[1], [2]]
    assert found[0]["run"]["domain"].dtype == TEXT
    assert found[0]["run"]["domain"].tolist() == ["prose, ü", ""]
    assert journal.next_number(0) == 3


def test_dropping_and_removing(journal, tmp_path):
    journal.drop(below=2)
    assert [piece["run"]["step"].tolist() for piece in journal.read(2)] == [[2]]
    (tmp_path / "journal" / ".00000003.npz.9.part").touch()
    journal.remove()
    assert not (tmp_path / "journal").exists()
    assert journal.next_number(7) == 7


def test_a_missing_block_is_named(journal, tmp_path):
    (tmp_path / "journal" / "00000001.npz").unlink()
    with pytest.raises(ValueError, match=r"journal lacks block 1; remove the later ones"):
        journal.read(0)


@pytest.mark.parametrize("keep", [0, 10, -30])
def test_a_damaged_block_is_named(journal, tmp_path, keep):
    path = tmp_path / "journal" / "00000001.npz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"00000001\.npz is damaged \(.*\); remove it and the later ones"):
        journal.read(0)
