"""The ledger: bytes move from one account to another and never get lost."""

from hypothesis import given
from hypothesis import strategies as st

from workbench.offload.ledger import Ledger


def test_a_guess_waits_and_then_is_used_or_wasted():
    ledger = Ledger()
    ledger.guessed(3, 100)
    ledger.guessed(3, 250)
    ledger.guessed(4, 50)
    assert (ledger.waiting_bytes, ledger.moved_bytes) == (300, 300)
    assert ledger.used(3) == 250
    assert ledger.wasted(4) == 50
    assert (ledger.useful_bytes, ledger.wasted_bytes, ledger.waiting_bytes) == (250, 50, 0)
    assert ledger.used(3) == ledger.wasted(9) == 0
    assert ledger.moved_bytes == 300


@given(st.lists(st.tuples(st.sampled_from(["guessed", "used", "wasted"]), st.integers(0, 3), st.integers(0, 99))))
def test_no_byte_gets_lost(calls):
    ledger, size, closed = Ledger(), {}, 0
    for what, page, num_bytes in calls:
        if what == "guessed":
            size[page] = max(num_bytes, size.get(page, 0))
            ledger.guessed(page, size[page])
        else:
            getattr(ledger, what)(page)
            closed += size.pop(page, 0)
    assert ledger.waiting_bytes == sum(size.values())
    assert ledger.moved_bytes == closed + sum(size.values())


def test_the_hit_rate_is_of_all_requests():
    ledger = Ledger(hits=6, misses=3, late=1)
    assert (ledger.requests, ledger.hit_rate) == (10, 0.6)
    assert Ledger().hit_rate != Ledger().hit_rate


def test_what_goes_down_is_moved_and_who_computes_below_is_asked_for():
    ledger = Ledger(hits=1, misses=1, demand_bytes=2048, written_bytes=1024, host_computed=2, row_bytes=96)
    assert (ledger.moved_bytes, ledger.requests, ledger.hit_rate) == (3072, 4, 0.25)
    assert "2.0 KiB read, 1.0 KiB sent down, 2 computed in the host" in ledger.to_text()
    assert "1.0 KiB, 2" in ledger._repr_html_()


def test_it_is_said_in_words():
    ledger = Ledger(hits=3, misses=1, demand_bytes=2048)
    assert ledger.to_text().startswith("hit rate 0.750 of 4 requests, 2.0 KiB read, stalled ")
    ledger.guessed(0, 1024)
    assert "(1.0 KiB of it guessed, 0 B for nothing)" in ledger.to_text()
    assert "0.750 of 4" in ledger._repr_html_()
