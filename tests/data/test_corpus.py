import pytest


def test_documents_of_a_domain_come_in_order(listed):
    corpus = listed({"a": ["1", "2"], "b": ["3"]})
    assert list(corpus.documents("train", "a")) == ["1", "2"]
    assert corpus.probe_text == "13"


def test_an_unknown_domain_is_refused_at_once(listed):
    with pytest.raises(LookupError, match=r"corpus 'listed' has no domain 'frensh' \(did you mean 'french'\?\)"):
        listed({"french": ["x"], "german": ["y"]}).documents("train", "frensh")


def test_the_html_names_the_domains_and_sums_the_bytes(listed):
    shown = listed({"<a>": ["x" * 2048], "b": ["y" * 1024]})._repr_html_()
    assert "3.0 KiB" in shown
    assert "&lt;a&gt;" in shown
    assert "<a>" not in shown


def test_the_html_stays_short_with_a_thousand_domains(listed):
    shown = listed({f"domain {n}": ["x"] for n in range(1000)})._repr_html_()
    assert "988 more" in shown
    assert len(shown) < 5000
