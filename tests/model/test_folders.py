import json

import pytest

from workbench.model.folders import copy_tokenizer, model_folder, special_ids, tokenizer_folder

TOKENIZER = {"added_tokens": [{"id": 0, "content": "<|endoftext|>"}, {"id": 7, "content": "<s>"}]}


def with_files(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / f"{name}.json").write_text(json.dumps(data))
    return folder


def test_a_folder_with_a_model_is_itself(tmp_path):
    assert model_folder(with_files(tmp_path / "theirs", config={})) == tmp_path / "theirs"
    assert model_folder(str(with_files(tmp_path / "ours", model={}))) == tmp_path / "ours"


def test_a_run_stands_for_its_newest_whole_checkpoint(tmp_path):
    for step in ("step_00000009", "step_00000100", "step_20"):
        with_files(tmp_path / "checkpoints" / step, model={})
    with_files(tmp_path / "checkpoints" / "step_00000200")  # nothing in it
    with_files(tmp_path / "checkpoints" / ".step_00000300.part-1", model={})  # a process died here
    with_files(tmp_path / "checkpoints" / "step_best", model={})
    assert model_folder(tmp_path) == tmp_path / "checkpoints" / "step_00000100"


def test_no_folder_and_no_model_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mistralai/Mixtral-8x7B-v0.1 is not a folder.*Nothing is downloaded"):
        model_folder("mistralai/Mixtral-8x7B-v0.1")
    with pytest.raises(FileNotFoundError, match=r"holds no model: neither config.json .* nor checkpoints/step_"):
        model_folder(tmp_path)


def test_the_tokenizer_is_beside_the_weights_or_in_the_run(tmp_path):
    run = tmp_path / "run"
    checkpoint = with_files(run / "checkpoints" / "step_1", model={})
    assert tokenizer_folder(run) is None
    with_files(run / "tokenizer", tokenizer=TOKENIZER)
    assert tokenizer_folder(run) == run / "tokenizer"
    with_files(run, tokenizer=TOKENIZER)
    assert tokenizer_folder(run) == run
    with_files(checkpoint, tokenizer=TOKENIZER)
    assert tokenizer_folder(run) == checkpoint


def test_only_the_files_of_a_tokenizer_are_copied(tmp_path):
    source = with_files(tmp_path / "a", tokenizer=TOKENIZER, tokenizer_config={}, config={}, secrets={})
    (target := tmp_path / "b").mkdir()
    copy_tokenizer(source, target)
    assert sorted(p.name for p in target.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer.json; give the folder of a tokenizer"):
        copy_tokenizer(target / "..", target)


def test_special_ids_come_from_the_configuration_or_from_the_names(tmp_path):
    unknown = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    assert special_ids(None) == unknown
    bare = with_files(tmp_path / "bare", tokenizer=TOKENIZER)
    assert special_ids(bare) == unknown
    settings = {"eos_token": "<|endoftext|>", "bos_token": {"content": "<s>"}, "pad_token": None}
    named = with_files(tmp_path / "named", tokenizer=TOKENIZER, tokenizer_config=settings)
    assert special_ids(named) == {"bos_token_id": 7, "eos_token_id": 0, "pad_token_id": None}
    model = with_files(tmp_path / "model", tokenizer=TOKENIZER, config={"eos_token_id": [1, 2], "pad_token_id": 3})
    assert special_ids(model) == {"bos_token_id": None, "eos_token_id": [1, 2], "pad_token_id": 3}
