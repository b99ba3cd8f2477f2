"""Opening and writing models: what comes back is what was there."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.core import Spec
from workbench.model.transformer import Transformer
from workbench.model.weights import export_hugging_face, load, load_model, open_source, save_model

CASES = ("mixtral", "mixtral-tied", "olmoe", "olmoe-clipped", "qwen2", "qwen2-dense", "qwen3", "qwen3-dense")
# Of another version, of no meaning to a model that is only run, or the same said in another way.
SAID_OTHERWISE = {
    "_name_or_path",
    "transformers_version",
    "decoder_sparse_step",
    "mlp_only_layers",
    "head_dim",
    "num_key_value_heads",
}


def assert_same_weights(first, second) -> None:
    expected, got = first.state_dict(), second.state_dict()
    assert expected.keys() == got.keys()
    assert [name for name in expected if not torch.equal(expected[name], got[name])] == []


@pytest.fixture
def copied(checkpoint, tmp_path):
    """A copy of transformers' folder of a case, to be damaged."""

    def copy(case: str):
        return shutil.copytree(checkpoint(case), tmp_path / case)

    return copy


def test_our_own_format_keeps_every_bit(make_model, tmp_path):
    router = Spec("top_k", {"top_k": 2, "selection_bias": True})
    model = make_model(router=router, shared_width=8, dense_layers=(0,), dense_width=12, tie_embeddings=False)
    next(model.moe_layers()).router.selection_bias.normal_()
    save_model(model, tmp_path / "new" / "folder")
    again = load_model(tmp_path / "new" / "folder")
    assert again.config == model.config
    assert_same_weights(model, again)
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["model.json", "model.safetensors"]


def test_every_router_can_be_saved(make_model, tmp_path):
    for router in ("switch", "gshard", "expert_choice", "hash", "random", "dense"):
        model = make_model(router=Spec(router))
        save_model(model, tmp_path / router)
        assert_same_weights(model, load(tmp_path / router))


def test_a_run_opens_at_its_newest_checkpoint(make_model, tmp_path):
    for seed, step in enumerate(("step_00000090", "step_00000100")):
        save_model(make_model(seed=seed), tmp_path / "checkpoints" / step)
    assert_same_weights(load(tmp_path), make_model(seed=1))


def test_saving_again_replaces_the_model(make_model, tmp_path):
    save_model(make_model(seed=0), tmp_path)
    save_model(make_model(seed=1, tie_embeddings=False), tmp_path)
    assert_same_weights(load(tmp_path), make_model(seed=1, tie_embeddings=False))


def test_a_full_disk_leaves_the_earlier_model(make_model, tmp_path, full_disk):
    save_model(make_model(seed=0), tmp_path)
    with (
        full_disk(20_000),
        pytest.raises(OSError, match=r"could not write .*; the earlier model.safetensors is intact"),
    ):
        save_model(make_model(seed=1, tie_embeddings=False), tmp_path)
    assert_same_weights(load(tmp_path), make_model(seed=0))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_model_of_another_format_is_refused(make_model, tmp_path):
    save_model(make_model(), tmp_path)
    (tmp_path / "model.json").write_text('{"format": "moe-workbench.model/9", "config": {}}')
    with pytest.raises(
        ValueError, match=r"must have format 'moe-workbench.model/1' .* got format 'moe-workbench.model/9'"
    ):
        load(tmp_path)
    (tmp_path / "model.json").write_text('{"format":')
    with pytest.raises(ValueError, match=r"model.json is damaged"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no model.json; give a folder that save_model wrote"):
        load_model(tmp_path / "checkpoints")


def test_a_router_that_is_not_installed_is_named(make_model, tmp_path):
    save_model(make_model(), tmp_path)
    data = json.loads((tmp_path / "model.json").read_text())
    data["config"]["router"]["name"] = "top_kk"
    (tmp_path / "model.json").write_text(json.dumps(data))
    with pytest.raises(LookupError, match=r"workbench.routers has no 'top_kk' \(did you mean 'top_k'\?\)"):
        load(tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_exported_again_transformers_reads_the_same_model(case, checkpoint, reference, tmp_path):
    import transformers

    original = checkpoint(case)
    export_hugging_face(load(original), tmp_path / "export", max_shard_bytes=40_000)
    stored, files = load_file(original / "model.safetensors"), sorted((tmp_path / "export").glob("*.safetensors"))
    written = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert len(files) > 1 and written.keys() == stored.keys()
    assert [name for name in stored if not torch.equal(stored[name], written[name])] == []
    settings = {"attn_implementation": "eager", "experts_implementation": "eager"}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export", **settings)
    ids = torch.randint(0, 97, (2, 12))
    assert torch.equal(theirs(ids).logits, reference(case)(ids).logits)
    before, after = (transformers.AutoConfig.from_pretrained(f).to_dict() for f in (original, tmp_path / "export"))
    assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} <= SAID_OTHERWISE
    assert load(tmp_path / "export").config == load(original).config


@torch.no_grad()
def test_our_default_model_is_a_qwen3_moe_to_transformers(make_model, tmp_path, assert_close):
    import transformers

    model = make_model()
    export_hugging_face(model, tmp_path / "export")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export", attn_implementation="eager")
    ids = torch.randint(0, 97, (2, 12))
    assert type(theirs).__name__ == "Qwen3MoeForCausalLM"
    assert_close(model(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize("case", ["mixtral", "qwen2", "qwen3"])
def test_experts_stacked_and_shards_are_read_as_well(case, checkpoint, reference, tmp_path):
    expected, model = load(checkpoint(case)), reference(case)
    model.save_pretrained(tmp_path / "stacked", save_original_format=False)
    model.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    assert "model.layers.0.mlp.experts.gate_up_proj" in load_file(tmp_path / "stacked" / "model.safetensors")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    assert_same_weights(load(tmp_path / "stacked"), expected)
    assert_same_weights(load(tmp_path / "shards"), expected)


def test_bfloat16_is_kept_or_converted(reference, tmp_path):
    reference("olmoe").to(torch.bfloat16).save_pretrained(tmp_path)
    kept, widened = load(tmp_path), load(tmp_path, dtype="float32")
    assert {p.dtype for p in kept.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in widened.parameters()} == {torch.float32}
    export_hugging_face(kept, tmp_path / "export")
    assert json.loads((tmp_path / "export" / "config.json").read_text())["dtype"] == "bfloat16"
    assert_same_weights(load(tmp_path / "export"), kept)


def test_tensors_that_repeat_the_model_are_passed_over(copied, checkpoint):
    folder = copied("olmoe-clipped")  # tied
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    assert_same_weights(load(folder), load(checkpoint("olmoe-clipped")))
    tensors["lm_head.weight"][3, 3] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"tie_word_embeddings is true, and lm_head.weight differs from"):
        load(folder)


def test_a_damaged_folder_is_refused_by_name(copied):
    folder = copied("mixtral")
    weights, config = folder / "model.safetensors", folder / "config.json"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"mixtral/model.safetensors is damaged or truncated"):
        load(folder)
    data = json.loads(config.read_text())
    config.write_text(json.dumps(data | {"model_type": "llama"}))
    with pytest.raises(ValueError, match=r"mixtral/config.json: model_type 'llama' is not supported"):
        load(folder)
    config.write_text(json.dumps(data | {"num_experts_per_tok": 9}))
    with pytest.raises(ValueError, match=r"mixtral/config.json: top_k must be between 1 and num_experts=6, got 9"):
        load(folder)


def test_a_shape_mismatch_names_the_tensor_and_both_shapes(copied):
    folder = copied("mixtral")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"intermediate_size": 40}))
    message = r"experts\.0\.w1\.weight in .*mixtral must have shape \(40, 32\), got \(48, 32\); the configuration"
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_missing_experts_are_named(copied):
    folder = copied("mixtral")
    tensors = load_file(folder / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if ".experts.5." not in n}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks 6 tensors \(model.layers.0.block_sparse_moe.experts.5.w1.weight, "):
        load(folder)


def test_an_export_never_replaces_anything(make_model, tmp_path, full_disk):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"there exists and is not empty; export into a new folder"):
        export_hugging_face(make_model(), tmp_path / "there")
    with full_disk(30_000), pytest.raises(OSError, match=r"could not write .*new .*nothing was left behind"):
        export_hugging_face(make_model(), tmp_path / "new")
    with pytest.raises(ValueError, match=r"router 'switch' has no Hugging Face form"):
        export_hugging_face(make_model(router=Spec("switch")), tmp_path / "new")
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer.json"):
        export_hugging_face(make_model(), tmp_path / "new", tokenizer=tmp_path / "there")
    assert [p.name for p in tmp_path.rglob("*")] == ["there", "notes.txt"]


def test_a_tokenizer_goes_along_with_its_ids(make_model, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "tokenizer.json").write_text('{"added_tokens": [{"id": 5, "content": "<end>"}]}')
    (source / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    export_hugging_face(make_model(), tmp_path / "export", tokenizer=source)
    assert (tmp_path / "export" / "tokenizer.json").read_text() == (source / "tokenizer.json").read_text()
    config = json.loads((tmp_path / "export" / "config.json").read_text())
    assert (config["eos_token_id"], config["bos_token_id"]) == (5, None)


PEAK = """
import sys, threading
from pathlib import Path
import torch
from workbench.model.weights import load

def anonymous_bytes():
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

before, peak, done = anonymous_bytes(), 0, threading.Event()
def watch():
    global peak
    while not done.wait(0.001):
        peak = max(peak, anonymous_bytes())
threading.Thread(target=watch).start()
model = load(sys.argv[1])
done.set()
size = sum(p.nbytes for p in model.parameters())
print((max(peak, anonymous_bytes()) - before) / size)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_loading_takes_the_memory_of_one_model(make_config, tmp_path, kind):
    model = Transformer(make_config(width=512, num_experts=16, expert_width=1024))
    for parameter in model.parameters():
        parameter.data.fill_(0.5)
    write = save_model if kind == "ours" else export_hugging_face
    write(model, tmp_path / "model")
    run = subprocess.run(
        [sys.executable, "-c", PEAK, tmp_path / "model"], capture_output=True, text=True, check=True, timeout=120
    )
    assert 0.9 < float(run.stdout) < 1.15


@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_a_checkpoint_can_be_read_piece_by_piece(make_model, checkpoint, tmp_path, kind):
    if kind == "ours":
        save_model(make_model(), tmp_path)
    folder = tmp_path if kind == "ours" else checkpoint("mixtral")
    loaded = load(folder).state_dict()
    with open_source(folder) as source:
        assert source.folder == folder
        assert set(source.files.names()) == {piece.name for piece in source.pieces} | set(source.ignored)
        for piece in source.pieces:
            assert torch.equal(source.files.read(piece.name), loaded[piece.target][piece.part])


def test_a_source_that_cannot_be_read_is_refused_like_a_model(copied, tmp_path):
    folder = copied("mixtral")
    (folder / "model.safetensors").unlink()
    for place, error in ((folder, FileNotFoundError), (tmp_path / "nowhere", FileNotFoundError)):
        with pytest.raises(error), open_source(place):
            pass
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config.json"), open_source(folder):
        pass
