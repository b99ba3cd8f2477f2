"""Conversion: every expert as it is in the checkpoint, whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.core.records import ExpertKey
from workbench.model.transformer import Transformer
from workbench.model.weights import load, open_source, save_model
from workbench.offload.store.blocks import parts_of
from workbench.offload.store.convert import convert, convert_model, converted, identity_of, stamp_of
from workbench.offload.store.expert_store import ExpertStore, write_store


def experts_of(store: ExpertStore) -> list[list[torch.Tensor]]:
    """Every expert's tensors, read from the disk and checked."""
    found, buffer = [], store.buffer()
    for page in range(store.num_pages):
        store.read(page, [buffer])
        store.check(page, [buffer])
        at, tensors = 0, []
        for part in store.shape.parts:
            count = part.num_bytes // part.torch_dtype.itemsize
            flat = torch.frombuffer(buffer, dtype=part.torch_dtype, count=count, offset=at)
            tensors.append(flat.view(part.shape).clone())
            at += part.num_bytes
        found.append(tensors)
    return found


def assert_is_the_model(folder: Path, model: Transformer) -> None:
    store = ExpertStore(folder)
    stored = experts_of(store)
    store.close()
    layers = list(model.moe_layers())
    assert len(stored) == sum(layer.experts.num_experts for layer in layers)
    for page, tensors in enumerate(stored):
        layer, expert = divmod(page, layers[0].experts.num_experts)
        expected = [tensor[expert] for tensor in layers[layer].experts.tensors()]
        assert [t.dtype for t in tensors] == [t.dtype for t in expected]
        assert all(torch.equal(a, b) for a, b in zip(tensors, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_expert_is_what_loading_gives(checkpoint, tmp_path, dtype):
    told = []
    with open_source(checkpoint(dtype=dtype)) as source:
        convert(source, tmp_path / "store", on_expert=lambda done, total: told.append((done, total)))
    assert_is_the_model(tmp_path / "store", load(checkpoint(dtype=dtype)))
    assert told == [(done, 16) for done in range(1, 17)]


def test_a_model_in_memory_is_written_as_it_is_now(checkpoint, tmp_path):
    model = load(checkpoint())
    next(model.moe_layers()).experts.down.data[3] = 7.0
    convert_model(model, tmp_path / "store")
    assert_is_the_model(tmp_path / "store", model)


def hugging_face(family: str, folder: Path, **changes) -> Path:
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"vocab_size": 67, "intermediate_size": 48, "num_experts_per_tok": 2, "max_position_embeddings": 64}
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = getattr(transformers, f"{family}Config")(**sizes, **ids, **changes)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    model.save_pretrained(folder)
    return folder


def test_tensors_of_mixed_dtypes_are_widened_as_loading_does(tmp_path):
    folder = hugging_face("Mixtral", tmp_path / "model", num_local_experts=4)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)

    def save(wide: str) -> None:
        some = {n: t if wide in n or ".experts." not in n else t.bfloat16() for n, t in tensors.items()}
        save_file(some, weights, {"format": "pt"})

    save(".experts.2.w1")
    with open_source(folder) as source:
        convert(source, tmp_path / "store")
    assert_is_the_model(tmp_path / "store", load(folder))
    # layers that differ would compute otherwise than the resident model.
    save("layers.0.block_sparse_moe.experts.2.w1")
    message = r"every expert must have the tensors float32 .* got bfloat16 .*; experts of different shapes cannot share"
    with open_source(folder) as source, pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: None, r"must hold model.layers.1.*experts.3.w2.weight with shape \(32, 48\), got none"),
        (
            lambda tensor: tensor[:5].clone(),
            r"with shape \(32, 48\), got \(5, 48\); the weights are incomplete or belong",
        ),
    ],
)
def test_a_checkpoint_that_lacks_an_expert_is_refused_by_name(tmp_path, change, message):
    folder = hugging_face("Mixtral", tmp_path / "model", num_local_experts=4)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "layers.1." in name and ".experts.3.w2" in name)
    changed = change(tensors.pop(name))
    save_file(tensors | ({} if changed is None else {name: changed}), folder / "model.safetensors", {"format": "pt"})
    with open_source(folder) as source, pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_model_without_experts_has_nothing_to_convert(tiny, tmp_path):
    dense = replace(tiny, dense_layers=(0, 1, 2))
    model = Transformer(dense)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    save_model(model, tmp_path / "model")
    with open_source(tmp_path / "model") as source, pytest.raises(ValueError, match="there is nothing to offload"):
        convert(source, tmp_path / "store")
    with pytest.raises(ValueError, match="there is nothing to offload"):
        convert_model(model, tmp_path / "store")


def test_other_weights_have_another_name(copied):
    folder = copied()
    with open_source(folder) as source:
        before = identity_of(source)
        assert identity_of(source) == before
    weights = folder / "model.safetensors"
    os.utime(weights, ns=(weights.stat().st_atime_ns, weights.stat().st_mtime_ns + 1))
    with open_source(folder) as source:
        assert identity_of(source) != before


def test_a_stamp_changes_with_any_file_and_with_what_is_said_of_them(tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text("weights")
    stamps = {stamp_of(files), stamp_of(files[:1]), stamp_of(files, {"layers": 2})}
    files[1].write_text("more weights")
    stamps.add(stamp_of(files))
    assert len(stamps) == 4
    assert stamp_of(files) in stamps


def test_a_store_is_converted_once_and_only_what_nobody_named_is_replaced(tmp_path):
    tensor, made = torch.ones(4), []

    def source_at(named, identity):
        def convert_into(folder):
            made.append(folder)
            experts = iter([(ExpertKey(0, 0), [tensor])])
            write_store(folder, experts, parts_of([tensor]), num_layers=1, num_experts=1, source=identity)

        store = converted(tmp_path / "usual", named, identity, convert_into)
        store.close()
        return store.source

    usual, named = tmp_path / "usual", tmp_path / "named"
    assert [source_at(None, "one") for _ in range(2)] == ["one", "one"]
    assert made == [usual]
    assert source_at(None, "two") == "two"
    assert source_at(named, "one") == "one"
    with pytest.raises(ValueError, match="holds the experts of one, expected those of two"):
        source_at(named, "two")
    assert made == [usual, usual, named]


@pytest.mark.parametrize("room", [0, 100_000, 5 * 24 * 1024 + 100])
def test_a_full_disk_leaves_nothing_behind(checkpoint, tmp_path, monkeypatch, room):
    class Full:
        """A file on a disk with some room left."""

        def __init__(self, file):
            self.file, self.left = file, room

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, block):
            self.left -= len(block)
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(block)

    real = Path.open

    def opened(path, mode="r", *rest, **options):
        file = real(path, mode, *rest, **options)
        return Full(file) if mode == "wb" else file

    monkeypatch.setattr(Path, "open", opened)
    message = r"could not write .*store .*No space left on device.*; nothing was left behind; free some space"
    with open_source(checkpoint()) as source, pytest.raises(OSError, match=message):
        convert(source, tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


CONVERT = """
import sys, time
from pathlib import Path
from workbench.model.weights import open_source
from workbench.offload.store.convert import convert

with open_source(sys.argv[1]) as source:
    convert(source, Path(sys.argv[2]), on_expert=lambda done, total: (print(done, flush=True), time.sleep(0.02)))
"""


@pytest.mark.parametrize("after", [1, 9, pytest.param(16, marks=pytest.mark.slow)])
def test_a_killed_conversion_leaves_no_store_and_the_next_one_works(checkpoint, tmp_path, after):
    folder = checkpoint()
    command = [sys.executable, "-c", CONVERT, str(folder), str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(after):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    left = [path.name for path in tmp_path.iterdir()]
    if "store" in left:
        ExpertStore(tmp_path / "store").close()
    else:
        assert len(left) == 1 and left[0].startswith(".store.part-")
    with open_source(folder) as source:
        convert(source, tmp_path / "store")
    assert_is_the_model(tmp_path / "store", load(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
