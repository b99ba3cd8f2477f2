"""Links by name: their speeds by the standards, multiples and speeds in words."""

import pytest

from workbench.offload.replay.known_links import KNOWN_LINKS, links_of


def test_speeds_are_three_quarters_of_the_standards():
    # 16 lanes of 8, 16 and 32 GT/s, 128 of 130 bits; four lanes of a disk.
    nominal = {"pcie3": 15.754e9, "pcie4": 31.508e9, "pcie5": 63.015e9, "nvme": 7.877e9}
    for name, speed in nominal.items():
        assert KNOWN_LINKS[name].bytes_per_second == pytest.approx(0.75 * speed, rel=1e-4)
    assert KNOWN_LINKS["sata"].bytes_per_second == 560e6
    # the card's expert of 9.44 MB at 12 GB/s takes 0.786 ms: what PCIe 3.0 was observed to do.
    assert KNOWN_LINKS["pcie3"].seconds(9_437_184) == pytest.approx(0.786e-3, rel=0.02)
    assert KNOWN_LINKS["nvme"].seconds(0) == 1e-4


def test_every_cost_says_that_it_is_predicted_and_from_what():
    for cost in KNOWN_LINKS.values():
        assert cost.source.startswith("predicted: ")
    assert "16 GT/s" in KNOWN_LINKS["pcie4"].source and "2104.07857" in KNOWN_LINKS["pcie4"].source
    assert "data sheet" in KNOWN_LINKS["sata"].source


def test_multiples_are_of_the_first_and_keep_its_start():
    found = links_of("nvme, 2x,0.5x,3.5GB/s")
    assert list(found) == ["nvme", "2x", "0.5x", "3.5GB/s"]
    first = found["nvme"]
    assert (found["2x"].bytes_per_second, found["2x"].start_seconds) == (2 * first.bytes_per_second, 1e-4)
    assert found["0.5x"].bytes_per_second == first.bytes_per_second / 2
    assert (found["3.5GB/s"].bytes_per_second, found["3.5GB/s"].start_seconds) == (3.5e9, 0)
    assert found["2x"].source.startswith("predicted: 2x the speed of nvme, which is predicted: PCIe 4.0 x4")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("pcie6", LookupError, "no link is called 'pcie6' .*speeds as 3.5GB/s"),
        ("2x,nvme", ValueError, "2x is a multiple of the first link"),
        ("nvme,nvme", ValueError, "given once, got 'nvme' twice"),
        ("nvme,0x", ValueError, "must be above 0, got 0x"),
        ("25%/s", LookupError, "no link is called '25%/s'"),
        ("fast/s", ValueError, "a budget is bytes"),
        ("", LookupError, "no link is called ''"),
    ],
)
def test_what_is_no_link_is_refused(text, error, message):
    with pytest.raises(error, match=message):
        links_of(text)
