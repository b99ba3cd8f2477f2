import pytest

from workbench.data import CORPORA, Task, open_corpus
from workbench.data.corpus import SPLITS

TASKS = [name for name in CORPORA.names() if issubclass(CORPORA.get(name), Task)]


def small(name: str) -> Task:
    return open_corpus(f"{name}:documents=20")


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_ascii_and_reads_the_same_each_time(name):
    task = small(name)
    for split in SPLITS:
        first = list(task.read(split))
        assert first == list(task.read(split))
        assert all(document.text.isascii() for document in first)


@pytest.mark.parametrize("name", TASKS)
def test_the_splits_of_a_task_share_no_document(name):
    task = small(name)
    train, validation, probe = ({document.text for document in task.read(split)} for split in SPLITS)
    assert not train & validation
    assert not any(passage in text for passage in probe for text in train | validation)


@pytest.mark.parametrize("name", TASKS)
def test_the_card_counts_the_bytes_that_are_read(name):
    task = small(name)
    for domain in task.domains:
        texts = [*task.documents("train", domain), *task.documents("validation", domain)]
        assert sum(map(len, texts)) == task.card.bytes[domain]
    assert task.card.is_synthetic


@pytest.mark.parametrize("name", TASKS)
def test_seed_and_size_are_in_the_fingerprint(name):
    tasks = [f"{name}:documents=20", f"{name}:documents=20,seed=1", f"{name}:documents=21"]
    assert len({open_corpus(spec).fingerprint for spec in tasks}) == 3
    assert open_corpus(tasks[0]).fingerprint == small(name).fingerprint


def test_a_task_without_documents_is_refused():
    with pytest.raises(ValueError, match="documents must be at least 1, got 0"):
        open_corpus("class_arithmetic:documents=0")
