import numpy as np
import pytest
import torch

from workbench.data import Batches, open_corpus


def rows_of(batch):
    """Each window as its tokens, its last target included."""
    return [
        (*ids, targets[-1]) for ids, targets in zip(batch.token_ids.tolist(), batch.target_ids.tolist(), strict=True)
    ]


@pytest.fixture
def two_domains(listed, byte, tmp_path):
    corpus = listed({"upper": ["ABCDEFG", "HIJKLMN", "OPQ"], "lower": ["abcdefghijklmnopqrs"]})

    def build(batch_size=2, sequence_length=4, seed=0):
        sizes = {"batch_size": batch_size, "sequence_length": sequence_length, "seed": seed}
        return Batches(corpus, byte, cache_folder=tmp_path, **sizes)

    return build


def test_windows_and_targets_by_hand(listed, byte, tmp_path):
    # Nine letters and the end token: windows ABCD>E and EFGH>I; the end token is in no whole window.
    corpus = listed({"letters": ["ABCDEFGHI"]})
    batches = Batches(corpus, byte, batch_size=2, sequence_length=4, seed=0, cache_folder=tmp_path)
    batch = batches.batch(0)
    pairs = {(bytes(i), bytes(t)) for i, t in zip(batch.token_ids.tolist(), batch.target_ids.tolist(), strict=True)}
    assert pairs == {(b"ABCD", b"BCDE"), (b"EFGH", b"FGHI")}
    assert (batches.num_windows, batches.tokens_per_batch) == (2, 8)


def test_documents_are_parted_by_the_end_token(listed, byte, tmp_path):
    corpus = listed({"letters": ["AB", "CD", "E"]})
    batch = Batches(corpus, byte, batch_size=1, sequence_length=7, seed=0, cache_folder=tmp_path).batch(0)
    assert [*batch.token_ids[0].tolist(), batch.target_ids[0, -1].item()] == [65, 66, 256, 67, 68, 256, 69, 256]


def test_an_epoch_shows_every_window_once(two_domains):
    batches = two_domains(batch_size=3)
    # 20 tokens of each domain: (20 - 1) // 4 = 4 windows of upper, 4 of lower.
    assert batches.num_windows == 8
    seen = [row for index in range(8) for row in rows_of(batches.batch(index))]
    for epoch in range(3):
        assert len(set(seen[8 * epoch : 8 * epoch + 8])) == 8
    assert set(seen[:8]) == set(seen[8:16]) == set(seen[16:24])
    assert seen[:8] != seen[8:16]


def test_every_token_but_the_first_is_a_target_once_per_epoch(two_domains):
    batches = two_domains(batch_size=1)
    targets = sorted(t for index in range(8) for t in batches.batch(index).target_ids.flatten().tolist())
    text = b"ABCDEFG\0HIJKLMN\0OPQ\0"[1:17] + b"abcdefghijklmnopqrs"[1:17]
    assert targets == sorted(256 if byte == 0 else byte for byte in text)


def test_a_batch_depends_on_seed_and_index_alone(two_domains):
    forwards, backwards = two_domains(), two_domains()
    want = {index: forwards.batch(index) for index in range(12)}
    for index in reversed(range(12)):
        again = backwards.batch(index)
        assert torch.equal(again.token_ids, want[index].token_ids)
        assert torch.equal(again.domain, want[index].domain)
    other = two_domains(seed=1)
    assert any(not torch.equal(other.batch(i).token_ids, want[i].token_ids) for i in range(4))


def test_no_window_holds_two_domains_and_each_carries_its_label(two_domains):
    batches = two_domains()
    for index in range(8):
        batch = batches.batch(index)
        assert batch.domains == ("upper", "lower")
        letters = batch.token_ids[batch.token_ids < 256]
        assert torch.equal(batch.domain[batch.token_ids < 256] == 1, letters >= ord("a"))
        assert batch.domain.shape == batch.token_ids.shape


def test_the_epoch_of_a_batch(two_domains):
    batches = two_domains(batch_size=3)
    assert [batches.epoch_of(index) for index in range(7)] == [0, 0, 0, 1, 1, 1, 2]


def test_a_batch_may_be_larger_than_the_corpus(two_domains):
    batch = two_domains(batch_size=20).batch(0)
    assert len(set(rows_of(batch))) == 8


def test_domains_appear_in_proportion_to_their_size(listed, byte, tmp_path):
    corpus = listed({"large": ["x" * 9000], "small": ["y" * 1000]})
    batches = Batches(corpus, byte, batch_size=100, sequence_length=10, seed=0, cache_folder=tmp_path)
    share = np.mean([(batches.batch(index).domain == 0).float().mean().item() for index in range(9)])
    assert 0.88 < share < 0.92


def test_evaluation_is_fixed_and_does_not_overlap(listed, byte, tmp_path):
    corpus = listed({"letters": ["x" * 50]}, {"letters": ["ABCDEFGHIJKLM"]})
    batches = Batches(corpus, byte, batch_size=2, sequence_length=4, seed=0, cache_folder=tmp_path)
    got = [row for batch in batches.evaluation("letters") for row in rows_of(batch)]
    assert [bytes(row) for row in got] == [b"ABCDE", b"EFGHI", b"IJKLM"]
    assert [batch.token_ids.shape[0] for batch in batches.evaluation("letters")] == [2, 1]


def test_a_few_evaluation_windows_are_spread_over_the_text(listed, byte, tmp_path):
    corpus = listed({"letters": ["x" * 50]}, {"letters": [bytes(range(33, 114)).decode()]})
    batches = Batches(corpus, byte, batch_size=8, sequence_length=8, seed=0, cache_folder=tmp_path)
    (batch,) = batches.evaluation("letters", max_windows=5)
    assert batch.token_ids[:, 0].tolist() == [33, 49, 65, 81, 97]


def test_held_out_text_shorter_than_a_window_is_padded_and_masked(listed, byte, tmp_path):
    corpus = listed({"letters": ["x" * 50]}, {"letters": ["AB"]})
    batches = Batches(corpus, byte, batch_size=2, sequence_length=5, seed=0, cache_folder=tmp_path)
    (batch,) = batches.evaluation("letters")
    assert batch.token_ids.tolist() == [[65, 66, 256, 256, 256]]
    assert batch.target_ids.tolist() == [[66, 256, -100, -100, -100]]
    assert batch.mask.tolist() == [[True, True, True, False, False]]


def test_the_probe_labels_every_token_and_masks_the_padding(two_domains):
    # The probe is ABCDEFG, then a to s: 26 tokens in rows of 4.
    batch = two_domains().probe()
    assert batch.token_ids.shape == (7, 4)
    assert bytes(batch.token_ids[batch.mask].tolist()) == b"ABCDEFGabcdefghijklmnopqrs"
    assert batch.domain[batch.mask].tolist() == [0] * 7 + [1] * 19
    assert batch.target_ids[batch.mask].tolist() == [*b"BCDEFGabcdefghijklmnopqrs", -100]
    assert not batch.mask[-1, 2:].any()
    assert (batch.target_ids[~batch.mask] == -100).all()


def test_a_domain_shorter_than_one_window_is_refused_with_its_size(listed, byte, tmp_path):
    corpus = listed({"long": ["x" * 100], "short": ["tiny"]})
    with pytest.raises(ValueError, match=r"at least 65 training tokens in domain 'short' .* got 5; use a smaller"):
        Batches(corpus, byte, batch_size=1, sequence_length=64, seed=0, cache_folder=tmp_path)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"sequence_length": 0}])
def test_sizes_below_one_are_refused(two_domains, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least 1, got 0"):
        two_domains(**wrong)


def test_an_unknown_domain_is_named_before_anything_is_read(two_domains):
    with pytest.raises(LookupError, match=r"no domain 'uper' \(did you mean 'upper'\?\). It has: upper, lower"):
        two_domains().evaluation("uper")


def test_a_task_is_refused_with_a_tokenizer_that_hides_its_symbols(bpe, tmp_path):
    with pytest.raises(ValueError, match="task 'token_remap' must be read with tokenizer 'byte', got 'mixed_bpe_4096'"):
        Batches(open_corpus("token_remap"), bpe, batch_size=1, sequence_length=8, seed=0, cache_folder=tmp_path)


def test_the_batch_is_made_of_tensors_of_its_own(two_domains):
    batches = two_domains()
    batches.batch(0).token_ids.zero_()
    assert batches.batch(0).token_ids.any()
