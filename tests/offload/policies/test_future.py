"""What oracles know."""

import pytest

from workbench.offload.policies._future import FarthestUse, Foreseen, by_all_later_sets, by_set, next_sets
from workbench.offload.requests import Requests

SETS = [[0, 2], [1], [0, 1], [], [2, 3]]


@pytest.fixture
def requests() -> Requests:
    return Requests.of_sets(SETS)


def test_the_next_set_of_every_request_is_found(requests):
    assert next_sets(requests).tolist() == [2, 4, 2, 5, 5, 5, 5]


def test_random_requests_agree_with_a_search(draw):
    for seed in range(10):
        sets = draw(seed, pages=8, largest=4, length=30)
        found = iter(next_sets(Requests.of_sets(sets)).tolist())
        for number, pages in enumerate(sets):
            for page in pages:
                later = [index for index in range(number + 1, len(sets)) if page in sets[index]]
                assert next(found) == (later[0] if later else len(sets))


def test_numbers_are_handed_out_set_by_set(requests):
    foreseen = Foreseen(requests, next_sets(requests))
    assert [foreseen.take(pages) for pages in SETS] == [[2, 4], [2], [5, 5], [], [5, 5]]
    with pytest.raises(LookupError, match=r"set 5 of the replay is .*, but the policy foresaw no more"):
        foreseen.take([1])


@pytest.mark.parametrize("wrong", [[0], [1, 2], []])
def test_another_set_than_the_foreseen_one_is_an_error(requests, wrong):
    foreseen = Foreseen(requests, next_sets(requests))
    with pytest.raises(LookupError, match=r"but the policy foresaw \[0, 2\]; give foresee the requests"):
        foreseen.take(wrong)
    # the right one may still come.
    assert foreseen.take([0, 2]) == [2, 4]


def test_residents_are_ordered_by_their_next_use(requests):
    uses = FarthestUse("min", by_set)
    uses.foresee(requests)
    for page in (0, 1, 2):
        uses.file(page)
    assert list(uses.farthest(frozenset())) == [1, 2, 0]
    uses.observe([0, 2])
    uses.file(0)
    uses.file(2)
    assert uses.next == [2, 1, 4, 4]
    assert list(uses.farthest(frozenset({0}))) == [2, 1]
    uses.remove(2)
    assert len(uses) == 2
    assert 2 not in uses


def test_several_leave_at_once_but_for_the_pinned(requests):
    uses = FarthestUse("min", by_set)
    uses.foresee(requests)
    uses.file_all([0, 1, 2, 3])
    assert uses.take(2, frozenset({1})) == [3, 2]
    assert uses.take(5, frozenset({1})) == [0]
    assert len(uses) == 1 and 1 in uses


def test_one_leaves_for_another_only_if_that_is_asked_for_sooner():
    uses = FarthestUse("min", by_set)
    uses.foresee(Requests.of_sets([[5], [0], [1], [2], [3], [4]], num_experts=8))
    uses.file_all([1, 3, 4, 6])
    # 6 is never asked for, and 4 after 2; but 3 before 4, so nobody leaves for it, or for those after it.
    assert uses.take_for([0, 2, 4, 5], frozenset()) == [6, 4]
    assert list(uses.farthest(frozenset())) == [3, 1]
    assert uses.take_for([7], frozenset()) == uses.take_for([0], frozenset({1, 3})) == []


def test_what_was_asked_for_since_it_was_filed_takes_no_room(draw):
    sets = draw(1, pages=9, largest=3, length=600)
    uses, held = FarthestUse("min", by_set), set()
    uses.foresee(Requests.of_sets(sets))
    for pages in sets:
        uses.observe(pages)
        uses.file_all(pages)
        held.update(pages)
        order = sorted(held, key=lambda page: (-uses.next[page], -page))
        assert list(uses.farthest(frozenset())) == order and len(uses) == len(held)
        held.difference_update(uses.take(2, frozenset(pages)))
    assert len(uses._order) < 100


def test_requests_of_one_set_are_ordered_by_what_follows():
    # 0 and 1 are both asked for in set 1; after it 1 comes back in set 2, 0 in set 3, 2 never.
    order = by_all_later_sets(Requests.of_sets([[0, 1], [0, 1, 2], [1], [0]]))
    assert order.first.tolist() == [1, 0, 6]
    assert order.following.tolist() == [5, 4, 12, 8, 16, 16, 16]


def test_the_order_by_all_later_sets_is_that_of_the_lists_of_later_sets(draw):
    for seed in range(10):
        sets = draw(seed, pages=8, largest=4, length=30)
        following = by_all_later_sets(Requests.of_sets(sets)).following.tolist()
        asked = [(number, page) for number, pages in enumerate(sets) for page in pages]
        later = [[index for index in range(n + 1, len(sets)) if page in sets[index]] + [len(sets)] for n, page in asked]
        for one, its in zip(following, later, strict=True):
            assert all(one < other for other, theirs in zip(following, later, strict=True) if its < theirs)
