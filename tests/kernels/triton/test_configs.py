"""The table is whole, what does not fit is cut, and what it asks for compiles well without a GPU."""

from typing import get_args

import pytest
import torch
from workbench_kernels.triton.configs import Config, Kernel, choose, entries, shared_bytes

PRODUCTS = {"_up", "_multiply", "_activation_backward", "_weight_gradient", "_both_weight_gradients"}
# A layer of the workbench itself, small enough that launches count.
SMALL = {"width": 256, "features": 512, "experts": 16}
BUCKETS = [8, 32, 128, 2048]
SHARED_BYTES = {"sm80": 166912, "sm90": 232448}


@pytest.mark.parametrize("target", ["sm80", "sm90"])
@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("kernel", get_args(Kernel))
def test_every_kernel_has_a_configuration_for_any_number_of_rows(kernel, bits, target):
    limits = [limit for limit, _ in entries(kernel, bits, target)]
    assert limits[-1] is None
    assert limits[:-1] == sorted(limits[:-1])
    for _, config in entries(kernel, bits, target):
        assert shared_bytes(kernel, config, bits // 8) <= SHARED_BYTES[target]


@pytest.mark.parametrize(("rows", "block_m"), [(0.01, 16), (16, 16), (17, 32), (192, 64), (1e6, 128)])
def test_the_configuration_follows_the_rows_per_expert(rows, block_m):
    like = torch.empty(0, dtype=torch.bfloat16)
    assert choose("down", like, rows_per_expert=rows, n=4096, k=4096).block_m == block_m


def test_blocks_are_no_wider_than_the_matrix_needs():
    like = torch.empty(0, dtype=torch.float16)
    assert choose("down", like, rows_per_expert=1000, n=20, k=3) == Config(128, 32, 16, 8, 8, 4)
    assert choose("weight_gradient", like, rows_per_expert=1000, m=33, n=700).block_m == 64


def test_a_gpu_with_less_shared_memory_gets_fewer_stages_then_narrower_tiles(monkeypatch):
    monkeypatch.setattr("workbench_kernels.triton.configs.NO_GPU", ("sm90", 101376))
    like = torch.empty(0, dtype=torch.bfloat16)
    found = choose("down", like, rows_per_expert=1000, n=4096, k=4096)
    assert (found.block_n, found.num_stages) == (256, 2)
    monkeypatch.setattr("workbench_kernels.triton.configs.NO_GPU", ("sm90", 65536))
    assert choose("down", like, rows_per_expert=1000, n=4096, k=4096).block_n == 128


def fault_of(launch: dict, *, wants_wgmma: bool, limit: int) -> list[str]:
    """What is wrong with a compiled launch."""
    faults = []
    # the blocks are chosen for Triton 3.6; other versions may need a register or two more at the end of a kernel.
    if launch["spilled"] > (0 if launch["triton"].startswith("3.6.") else 32):
        faults.append(f"{launch['spilled']} bytes spilled")
    if launch["shared"] > limit:
        faults.append(f"{launch['shared']} bytes of shared memory")
    if launch["kernel"] in PRODUCTS and not launch["copies"]:
        faults.append("loads are not pipelined")
    if wants_wgmma and launch["kernel"] in PRODUCTS and launch["block_m"] >= 64 and not launch["wgmma"]:
        faults.append("no wgmma")
    return [f"{launch['kernel']} {launch['words']}: {fault}" for fault in faults]


def faults_of(launches: list[dict], *, wants_wgmma: bool, limit: int) -> list[str]:
    assert launches != []
    return [fault for launch in launches for fault in fault_of(launch, wants_wgmma=wants_wgmma, limit=limit)]


@pytest.mark.parametrize(("kernel", "dtype"), [("_up", "bfloat16"), ("_activation_backward", "float16")])
def test_large_tiles_use_wgmma_and_spill_nothing(kernel, dtype, compiled):
    launches = compiled(dtype=dtype, capability=90, rows_per_expert=[2048], only=kernel)["launches"]
    assert faults_of(launches, wants_wgmma=True, limit=SHARED_BYTES["sm90"]) == []


def test_both_weight_gradients_use_wgmma_and_spill_nothing(compiled):
    words = {"only": "_both_weight_gradients", **SMALL}
    launches = compiled(dtype="bfloat16", capability=90, rows_per_expert=[2048], **words)["launches"]
    assert faults_of(launches, wants_wgmma=True, limit=SHARED_BYTES["sm90"]) == []


def test_what_begins_at_an_odd_address_gets_tiles_that_fit_its_registers(compiled):
    words = {"only": "_both_weight_gradients", "offset": 1, **SMALL}
    launches = compiled(dtype="bfloat16", capability=90, rows_per_expert=[2048], **words)["launches"]
    assert without_copies(faults_of(launches, wants_wgmma=True, limit=SHARED_BYTES["sm90"])) == []


def without_copies(faults: list[str]) -> list[str]:
    """Single numbers of two bytes are too small to be copied ahead."""
    return [fault for fault in faults if "not pipelined" not in fault]


def test_the_number_of_tokens_asks_for_no_other_machine_code(compiled):
    versions = compiled("versions", tokens=[1, 2, 7, 16, 17, 24, 32])
    assert len(versions) > 8
    assert {name: count for name, count in versions.items() if count != 1} == {}


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "rows"), [("bfloat16", BUCKETS), ("float32", [8, 2048])])
def test_the_whole_table_of_sm90(dtype, rows, compiled):
    launches = compiled(dtype=dtype, capability=90, rows_per_expert=rows)["launches"]
    helpers = {"_count", "_place", "_combine", "_largest_first"}
    assert {launch["kernel"] for launch in launches} == PRODUCTS - {"_both_weight_gradients"} | helpers
    assert faults_of(launches, wants_wgmma=dtype != "float32", limit=SHARED_BYTES["sm90"]) == []


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "rows"), [("bfloat16", [32, 2048]), ("float32", [2048])])
def test_the_table_of_sm80(dtype, rows, compiled):
    launches = compiled(dtype=dtype, capability=80, rows_per_expert=rows)["launches"]
    assert faults_of(launches, wants_wgmma=False, limit=SHARED_BYTES["sm80"]) == []


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "rows"), [("bfloat16", BUCKETS), ("float16", [8, 2048]), ("float32", [8, 2048])])
@pytest.mark.parametrize("capability", [80, 90])
def test_a_small_layer(dtype, rows, capability, compiled):
    launches = compiled(dtype=dtype, capability=capability, rows_per_expert=rows, **SMALL)["launches"]
    assert "_both_weight_gradients" in {launch["kernel"] for launch in launches}
    wants_wgmma = capability == 90 and dtype != "float32"
    assert faults_of(launches, wants_wgmma=wants_wgmma, limit=SHARED_BYTES[f"sm{capability}"]) == []


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [SMALL, {"width": 2048, "features": 768}], ids=["small", "large"])
def test_a_layer_at_odd_addresses(sizes, compiled):
    launches = compiled(dtype="bfloat16", capability=90, rows_per_expert=[2048], offset=1, **sizes)["launches"]
    assert without_copies(faults_of(launches, wants_wgmma=True, limit=SHARED_BYTES["sm90"])) == []


@pytest.mark.slow
@pytest.mark.parametrize(("width", "features"), [(2064, 784), (2047, 769)], ids=["uneven", "odd"])
def test_sizes_that_no_block_divides(width, features, compiled):
    sizes = {"width": width, "features": features}
    launches = compiled(dtype="bfloat16", capability=90, rows_per_expert=[2048], **sizes)["launches"]
    faults = faults_of(launches, wants_wgmma=True, limit=SHARED_BYTES["sm90"])
    assert (faults if width % 16 == 0 else without_copies(faults)) == []
