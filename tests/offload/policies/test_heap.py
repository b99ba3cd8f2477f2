"""The lazy heap, against a scan."""

from random import Random

from workbench.offload.policies._heap import LazyHeap


def test_it_finds_the_smallest_whatever_happened_before():
    generator, keys = Random(0), [0.0] * 30
    heap, held = LazyHeap(lambda page: (keys[page], page)), set()
    for _ in range(6000):
        page = generator.randrange(30)
        action = generator.random()
        if page not in held:
            heap.add(page)
            held.add(page)
        elif action < 0.2:
            heap.discard(page)
            held.remove(page)
        elif action < 0.6:
            keys[page] += generator.random()
        elif action < 0.8:
            keys[page] -= generator.random()
            heap.update(page)
        elif action < 0.81:
            keys[:] = [key / 2 - 1 for key in keys]
            heap.update_all()
        assert (page in heap) == (page in held)
        pinned = frozenset(generator.sample(range(30), 5)) if generator.random() < 0.5 else frozenset()
        for _ in range(2):
            free = held - pinned
            assert heap.smallest(pinned) == min(free, key=lambda page: (keys[page], page), default=None)


def test_a_pinned_set_that_changes_is_looked_at_again():
    heap, pinned = LazyHeap(lambda page: (page,)), {1}
    heap.add(1)
    heap.add(2)
    assert heap.smallest(pinned) == 2
    pinned.clear()
    assert heap.smallest(pinned) == 1


def test_it_does_not_grow_with_the_updates():
    keys = [0.0, 0.0]
    heap = LazyHeap(lambda page: (keys[page], page))
    heap.add(0)
    heap.add(1)
    for step in range(10_000):
        keys[step % 2] = -step
        heap.update(step % 2)
    assert len(heap._heap) < 100


def test_if_all_are_pinned_there_is_none():
    heap = LazyHeap(lambda page: (page,))
    heap.add(3)
    assert heap.smallest(frozenset({3})) is None
    assert heap.smallest(frozenset()) == 3


def test_several_leave_at_once_the_smallest_first_and_no_pinned_one():
    keys = [5.0, 1.0, 4.0, 2.0, 3.0]
    heap = LazyHeap(lambda page: (keys[page], page))
    heap.add_all(range(5))
    keys[1] = 9.0
    assert heap.take(2, frozenset({3})) == [4, 2]
    assert 3 in heap and 4 not in heap
    assert heap.take(9, frozenset()) == [3, 0, 1]
    assert heap.take(1, frozenset()) == heap.take(0, frozenset()) == []


def test_a_page_that_comes_back_has_one_key():
    keys = [1.0, 2.0]
    heap = LazyHeap(lambda page: (keys[page], page))
    heap.add_all([0, 1])
    heap.discard(0)
    keys[0] = 3.0
    heap.add(0)
    assert heap.take(3, frozenset()) == [1, 0]


def test_a_key_that_only_grew_takes_no_room():
    keys = [0.0, 0.0]
    heap = LazyHeap(lambda page: (keys[page], page))
    heap.add_all([0, 1])
    for step in range(1, 50):
        keys[0] = step
        heap.add_all([0, 1])
    assert len(heap._heap) == 2
    assert heap.take(2, frozenset()) == [1, 0]
