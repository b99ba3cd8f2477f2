"""Loading around the experts: what is read, what is refused, and what it takes."""

import json
import shutil
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from workbench.model.host import HostModel
from workbench.model.host.loading import empty_model, host_config, load_around_experts


def copy_of(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def rewritten(path, change):
    """The folder with its weights changed."""
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    return path


def test_an_empty_model_holds_shapes_and_computed_buffers(folder):
    model = empty_model(host_config(folder("gpt_oss"))[1], dtype=None)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert [name for name, buffer in model.named_buffers() if buffer.is_meta] == []


def test_modules_that_another_thread_makes_keep_their_memory(folder):
    config = host_config(folder("olmoe"))[1]
    stop, empty = threading.Event(), []

    def make():
        while not stop.is_set():
            empty.append(nn.Linear(2, 2).weight.is_meta)

    other = threading.Thread(target=make)
    other.start()
    empty_model(config, dtype=None)
    stop.set()
    other.join()
    assert len(empty) > 10 and not any(empty)


def test_all_but_the_experts_is_loaded(folder, family, plain):
    path = folder(family)
    model = empty_model(host_config(path)[1], dtype=None)
    load_around_experts(path, model, "cpu")
    expected = plain(family).state_dict()
    found = model.state_dict()
    assert found.keys() == expected.keys()
    left = {name for name, tensor in found.items() if tensor.is_meta}
    assert left and all(".experts." in name for name in left)
    assert [n for n in found.keys() - left if not torch.equal(found[n], expected[n])] == []


def test_a_missing_tensor_is_named(folder, tmp_path):
    path = rewritten(copy_of(folder("olmoe"), tmp_path), lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(ValueError, match=r"lacks 1 tensor \(model.norm.weight\), which OlmoeForCausalLM asks for"):
        HostModel.open(path, with_experts=False)


def test_a_strange_tensor_is_named(folder, tmp_path):
    path = rewritten(copy_of(folder("olmoe"), tmp_path), lambda tensors: tensors.update(extra=torch.ones(2)))
    with pytest.raises(ValueError, match=r"holds 1 tensor \(extra\), which OlmoeForCausalLM has no place for"):
        HostModel.open(path, with_experts=False)


def test_a_tensor_of_another_shape_is_named(folder, tmp_path):
    path = rewritten(
        copy_of(folder("olmoe"), tmp_path), lambda tensors: tensors.update({"model.norm.weight": torch.ones(3)})
    )
    with pytest.raises(ValueError, match=r"model.norm.weight must have shape \(32,\), got \(3,\)"):
        HostModel.open(path, with_experts=False)


@pytest.mark.parametrize("with_experts", [True, False])
def test_quantised_weights_are_refused(folder, tmp_path, with_experts):
    path = copy_of(folder("gpt_oss"), tmp_path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "mxfp4"}}))
    with pytest.raises(ValueError, match=r"quantised weights \(mxfp4\), which are not read; open it once"):
        HostModel.open(path, with_experts=with_experts)


def test_an_unknown_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nobody_knows"}')
    with pytest.raises(ValueError, match="nobody_knows"):
        HostModel.open(tmp_path)


def test_a_folder_of_our_own_is_sent_to_load(tmp_path):
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"open the workbench's own models with workbench.model.load"):
        HostModel.open(tmp_path)


def test_without_transformers_it_says_what_is_missing(folder, monkeypatch):
    path = folder("olmoe")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match="needs transformers, which is not installed"):
        HostModel.open(path)


PEAK = """
import sys
from pathlib import Path

import torch
from transformers import MixtralConfig, MixtralForCausalLM
from workbench.model.host import HostModel

folder = sys.argv[1]
sizes = {"num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 512}
warm = MixtralConfig(hidden_size=8, intermediate_size=8, num_local_experts=2, num_experts_per_tok=1, **sizes)
MixtralForCausalLM(warm).save_pretrained(folder + "/warm")
for with_experts in (False, True):
    HostModel.open(folder + "/warm", with_experts=with_experts)


def peak():
    # of this process alone: ru_maxrss begins with what the parent held.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


before = peak()
host = HostModel.open(folder + "/large", with_experts=False)
host.plug_experts(lambda layer, hidden, expert, weight, module: hidden * 0)
host.forward(torch.arange(16).unsqueeze(0))
bare = peak()
HostModel.open(folder + "/large")
print(bare - before, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_the_experts_are_never_in_memory(tmp_path):
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 512}
    config = MixtralConfig(hidden_size=256, intermediate_size=1024, num_local_experts=21, dtype="bfloat16", **sizes)
    model = MixtralForCausalLM(config).to(torch.bfloat16)
    experts = sum(p.nbytes for name, p in model.named_parameters() if ".experts." in name) / 2**20
    others = sum(p.nbytes for p in model.parameters()) / 2**20 - experts
    assert 180 < experts < 220 and others < 6
    model.save_pretrained(tmp_path / "large")
    del model
    done = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    bare, whole = map(float, done.stdout.split())
    # mapped pages of what is read count beside the copy, and torch keeps some room: a tenth of the experts at most.
    assert bare < 2 * others + 20, f"{bare:.0f} MiB for {others:.0f} MiB beside {experts:.0f} MiB of experts"
    assert whole > experts, "the measure would not have seen them"
