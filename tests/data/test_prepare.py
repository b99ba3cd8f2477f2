from workbench.data import Batches, load_tokenizer, open_corpus
from workbench.data.prepare import prepare


def test_a_prepared_corpus_is_not_tokenised_again(tmp_path, capsys):
    prepare("token_remap:documents=60", cache_folder=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.bin")}
    corpus = open_corpus("token_remap:documents=60")
    Batches(corpus, load_tokenizer("byte"), batch_size=1, sequence_length=16, seed=0, cache_folder=tmp_path)
    assert before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.bin")} == before
