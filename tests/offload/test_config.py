"""Budgets as people write them, and the ones that make no sense."""

import pytest

from workbench.offload.config import OffloadConfig, budget_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("64MiB", 64 * 2**20),
        (" 1.5 gb ", 1_500_000_000),
        ("2KB", 2000),
        ("2kib", 2048),
        ("3 TiB", 3 * 2**40),
        ("25%", 250),
        ("100 %", 1000),
        ("12.5%", 125),
        ("150%", 1500),
        ("7B", 7),
    ],
)
def test_a_budget_is_bytes_or_a_share(text, expected):
    assert budget_bytes(text, 1000) == expected


@pytest.mark.parametrize("text", ["-3", "abc", "12 parsecs", "", "%", "1e9", "64 Mi", "1,5GB", "25%%", "nan", "inf"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(
        ValueError, match=r"a budget is bytes, as 64MiB or 1.5GB, or a share of all experts, as 25%; got"
    ):
        OffloadConfig(budget=text)


@pytest.mark.parametrize("budget", ["0%", 0, -3, "0", "0.0GiB"])
def test_nothing_is_no_budget(budget):
    with pytest.raises(ValueError, match=r"a budget must be above 0, got"):
        OffloadConfig(budget=budget)


def test_a_host_tier_is_asked_for_with_a_budget():
    assert OffloadConfig().host_budget is None
    assert OffloadConfig(host_budget="2GiB", inclusive=True, host_compute=True).host_policy.name == "lru"
    with pytest.raises(ValueError, match="a budget is bytes, as 64MiB"):
        OffloadConfig(host_budget="plenty")
    for option in ("inclusive", "host_compute"):
        with pytest.raises(ValueError, match="are about a tier in the host: give a host_budget as well"):
            OffloadConfig(**{option: True})


def test_at_least_one_thread_reads():
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        OffloadConfig(threads=0)
    assert (OffloadConfig().policy.name, OffloadConfig().prefetch, OffloadConfig().budget) == ("lru", None, "25%")
