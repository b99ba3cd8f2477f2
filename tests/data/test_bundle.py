import pytest

from workbench.data import bundled


def test_the_bundled_corpus_and_tokenizer_are_found():
    assert (bundled("corpora/mixed") / "manifest.json").is_file()
    assert (bundled("tokenizers/mixed_bpe_4096") / "tokenizer.json").is_file()


def test_what_is_missing_is_named_with_the_places_searched():
    with pytest.raises(FileNotFoundError, match=r"expected corpora/lost in .*_datasets or .*datasets, found neither"):
        bundled("corpora/lost")
