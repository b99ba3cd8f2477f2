import torch

from workbench.model.kv_cache import KVCache


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
