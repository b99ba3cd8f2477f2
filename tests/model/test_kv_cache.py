import pytest
import torch

from workbench.model.kv_cache import KVCache, room_for


def test_columns_come_back_in_order_however_it_grows():
    cache, chunks = KVCache(2), [torch.randn(2, n, 3) for n in (5, 1, 1, 30, 1, 64)]
    for step, chunk in enumerate(chunks):
        cache.advance(torch.ones(2, chunk.shape[1], dtype=torch.bool))
        assert torch.equal(cache.extend(("a",), chunk), torch.cat(chunks[: step + 1], dim=1))
    assert cache.length == 102


def test_keys_do_not_mix():
    cache, first, second = KVCache(1), torch.randn(1, 2, 3), torch.randn(1, 2, 4)
    cache.advance(torch.ones(1, 2, dtype=torch.bool))
    cache.extend((0, "key"), first)
    assert torch.equal(cache.extend((1, "key"), second), second)
    cache.advance(torch.ones(1, 1, dtype=torch.bool))
    assert torch.equal(cache.extend((0, "key"), first[:, :1])[:, :2], first)


def test_padding_does_not_count_as_past():
    cache = KVCache(2)
    assert cache.past is None
    mask = torch.tensor([[False, True, True], [True, True, True]])
    cache.advance(mask)
    cache.advance(torch.ones(2, 1, dtype=torch.bool))
    assert cache.past.tolist() == [3, 4]
    assert torch.equal(cache.mask(), torch.cat((mask, torch.ones(2, 1, dtype=torch.bool)), dim=1))


def test_a_thousand_tokens_are_copied_only_a_few_times():
    cache, places = KVCache(1), set()
    for _ in range(1000):
        cache.advance(torch.ones(1, 1, dtype=torch.bool))
        places.add(cache.extend(("k",), torch.ones(1, 1, 1)).data_ptr())
    assert len(places) <= 8  # doublings from 16 to 1024


def test_its_memory_is_told():
    cache = KVCache(2)
    cache.advance(torch.ones(2, 20, dtype=torch.bool))
    cache.extend(("k",), torch.zeros(2, 20, 4))
    assert cache.num_bytes == 2 * 20 * 4 * 4
    assert "columns" in cache._repr_html_()


@pytest.mark.parametrize("batch", [1, 3])
def test_the_memory_after_the_next_columns_is_known_before(batch):
    cache = KVCache(batch)
    assert cache.bytes_after(5) == 0
    for columns in (3, 1, 12, 1, 15, 1, 40, 1):
        expected = cache.bytes_after(columns)
        is_first = cache.length == 0
        cache.advance(torch.ones(batch, columns, dtype=torch.bool))
        cache.extend((0, "key"), torch.zeros(batch, columns, 2, 4))
        cache.extend((0, "router"), torch.zeros(batch, columns, 3, dtype=torch.bfloat16))
        assert cache.num_bytes == (expected or batch * 16 * (8 * 4 + 3 * 2))
        assert is_first == (expected == 0)
    assert [room_for(3), room_for(17), room_for(17, 16), room_for(90, 32)] == [16, 17, 32, 90]
