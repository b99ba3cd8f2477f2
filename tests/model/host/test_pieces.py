"""Where each expert lies: the parts in order are the module's parameters, to the bit."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.core.records import ExpertKey
from workbench.model.host import HostModel, expert_pieces, read_expert
from workbench.model.tensor_files import TensorFiles


def test_every_expert_is_that_of_the_module(folder, family):
    path = folder(family)
    pieces, layers = expert_pieces(path), HostModel.open(path).layers
    assert list(pieces) == [ExpertKey(layer.index, e) for layer in layers for e in range(layer.num_experts)]
    with TensorFiles(path) as files:
        for (layer, expert), parts in pieces.items():
            own = {name: tensor[expert] for name, tensor in layers[layer].module.named_parameters()}
            read = read_expert(files, parts)
            assert list(read) == list(own), "in the order of the module"
            assert all(torch.equal(read[name], own[name]) for name in own)
            flat = torch.cat([files.read(part.name)[part.at].flatten() for part in parts])
            assert torch.equal(flat, torch.cat([own[name].flatten() for name in own])), "bytes in order"


def test_parts_of_gated_experts_stored_one_by_one(folder):
    parts = expert_pieces(folder("deepseek_v3"))[0, 10]
    name = "model.layers.1.mlp.experts.10"
    assert [part.name for part in parts] == [f"{name}.{of}_proj.weight" for of in ("gate", "up", "down")]
    assert [part.parameter for part in parts] == ["gate_up_proj", "gate_up_proj", "down_proj"]
    assert {part.at for part in parts} == {()}


def test_parts_of_experts_stored_together(folder):
    parts = expert_pieces(folder("gpt_oss"))[2, 7]
    assert [part.parameter for part in parts] == ["gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias"]
    assert {part.at for part in parts} == {(7,)}


def changed(path, tmp_path, change):
    shutil.copytree(path, tmp_path / "copy")
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "copy" / "model.safetensors", {"format": "pt"})
    return tmp_path / "copy"


LAST = "model.layers.2.mlp.experts.11.up_proj.weight"


def test_an_expert_that_is_missing_is_noticed(folder, tmp_path):
    path = changed(folder("olmoe"), tmp_path, lambda tensors: tensors.pop(LAST))
    with pytest.raises(ValueError, match=r"must hold 12 tensors for model.layers.2.mlp.experts.gate_up_proj, got 11"):
        expert_pieces(path)


def test_an_expert_of_another_shape_is_noticed(folder, tmp_path):
    path = changed(folder("olmoe"), tmp_path, lambda tensors: tensors.update({LAST: torch.ones(5, 32)}))
    with pytest.raises(
        ValueError, match=r"gate_up_proj of expert 11 in MoE layer 2 must have shape \(48, 32\), got \(29"
    ):
        expert_pieces(path)


def test_transposed_experts_are_turned(tmp_path):
    from workbench.model.host import ExpertPart

    stored = torch.arange(24.0).reshape(2, 3, 4)
    save_file({"w": stored}, tmp_path / "model.safetensors")
    with TensorFiles(tmp_path) as files:
        read = read_expert(files, [ExpertPart("w", (1,), "down_proj", True)])
    assert torch.equal(read["down_proj"], stored[1].T)
