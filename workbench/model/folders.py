"""Folders that hold a model: a Hugging Face one, one of ours, or a run; and the tokenizer in them."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.model.tensor_files import read_json

__all__ = ["CONFIG", "FOREIGN_CONFIG", "copy_tokenizer", "model_folder", "special_ids", "tokenizer_folder"]

CONFIG, FOREIGN_CONFIG = "model.json", "config.json"

_STEP = re.compile(r"step_(\d+)")
_TOKENIZER = "tokenizer.json"
_TOKENIZER_FILES = (
    _TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
)
_SPECIAL = ("bos", "eos", "pad")


def model_folder(path: Path | str) -> Path:
    """The folder that `load` reads: the given one, or the newest checkpoint of a run.

    Raises:
        FileNotFoundError: no such folder, or no model in it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a folder; give a folder with a checkpoint, or a run. Nothing is downloaded: "
            "an open model must be on disk"
        )
    if (folder / CONFIG).is_file() or (folder / FOREIGN_CONFIG).is_file():
        return folder
    steps = [(int(m[1]), p) for p in folder.glob("checkpoints/step_*") if (m := _STEP.fullmatch(p.name))]
    whole = [(step, p) for step, p in steps if (p / CONFIG).is_file()]
    if not whole:
        raise FileNotFoundError(
            f"{folder} holds no model: neither {FOREIGN_CONFIG} (a Hugging Face folder), nor {CONFIG} (one of ours), "
            "nor checkpoints/step_* (a run)"
        )
    return max(whole)[1]


def tokenizer_folder(path: Path | str) -> Path | None:
    """The folder with the `tokenizer.json` of a model, a run or a checkpoint of one; None if there is none.

    Raises:
        FileNotFoundError: no such folder, or no model in it.
    """
    model, given = model_folder(path), Path(path)
    candidates = [model, given, given / "tokenizer"]
    if _STEP.fullmatch(model.name):
        candidates.append(model.resolve().parent.parent / "tokenizer")
    return next((folder for folder in candidates if (folder / _TOKENIZER).is_file()), None)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the files of a tokenizer from one folder to another.

    Raises:
        FileNotFoundError: there is no `tokenizer.json`.
    """
    _check_tokenizer(source)
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def special_ids(source: Path | None) -> Mapping[str, Any]:
    """`bos_token_id`, `eos_token_id` and `pad_token_id` of a folder with a tokenizer, None where unknown.

    A Hugging Face folder says so in its `config.json`; else the names in `tokenizer_config.json` are looked up.

    Raises:
        FileNotFoundError: there is no `tokenizer.json`.
    """
    keys = {name: f"{name}_token_id" for name in _SPECIAL}
    if source is None:
        return dict.fromkeys(keys.values())
    _check_tokenizer(source)
    if (source / FOREIGN_CONFIG).is_file():
        config = read_json(source / FOREIGN_CONFIG)
        return {key: config.get(key) for key in keys.values()}
    settings = source / "tokenizer_config.json"
    named = read_json(settings) if settings.is_file() else {}
    ids = {token["content"]: token["id"] for token in read_json(source / _TOKENIZER).get("added_tokens", ())}
    return {key: ids.get(_content(named.get(f"{name}_token"))) for name, key in keys.items()}


def _check_tokenizer(source: Path) -> None:
    if not (source / _TOKENIZER).is_file():
        raise FileNotFoundError(f"{source} holds no {_TOKENIZER}; give the folder of a tokenizer")


def _content(token: Any) -> Any:
    # transformers writes a token as its text, or as an object with the text in it.
    return token.get("content") if isinstance(token, dict) else token
