"""What is told about policies and prefetchers."""

import json

import pytest

from workbench.offload.listing import caching_rows
from workbench.offload.policies import POLICIES
from workbench.offload.prefetch import PREFETCHERS


def test_a_policy_says_what_it_does_and_what_it_takes():
    rows = {row["name"]: row for row in caching_rows(POLICIES)}
    assert tuple(rows) == POLICIES.names()
    assert rows["lru"]["does"].startswith("Evict the expert whose last use is oldest; a prefetched one")
    assert rows["lfu"]["arguments"] == {"in_cache": False, "half_life": None}
    assert not rows["lfu"]["reads_future"] and rows["lfu"]["runs"] == ""
    assert rows["min"]["reads_future"] and rows["min"]["runs"] == "only in a replay"


def test_what_must_be_told_is_marked():
    rows = {row["name"]: row for row in caching_rows(PREFETCHERS)}
    assert tuple(rows) == PREFETCHERS.names()
    assert "required" in rows["routing_path"]["arguments"].values()
    assert rows["oracle"]["runs"] == "with these defaults only in a replay"


@pytest.mark.parametrize("registry", [POLICIES, PREFETCHERS])
def test_every_row_is_plain_data_on_one_line(registry):
    rows = caching_rows(registry)
    assert json.loads(json.dumps(rows, default=list)) is not None
    assert all(row["does"] and "\n" not in row["does"] for row in rows)
