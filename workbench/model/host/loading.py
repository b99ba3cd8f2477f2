"""A transformers model from a folder: whole, or with its experts left on disk."""

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from workbench.model.folders import FOREIGN_CONFIG, model_folder
from workbench.model.host.layers import find_layers
from workbench.model.host.sources import Source, Sources, sources_of
from workbench.model.tensor_files import TensorFiles

__all__ = ["empty_model", "host_config", "load_around_experts", "load_whole"]

_FREQUENCIES = ".rotary_emb.inv_freq"  # old checkpoints store what the model computes
_MOST_NAMED = 3


def host_config(path: Path | str) -> tuple[Path, Any]:
    """The folder of a checkpoint, and its configuration as transformers reads it.

    Raises:
        FileNotFoundError: no such folder, or no `config.json` in it.
        ModuleNotFoundError: transformers is not installed.
        ValueError: an architecture that transformers does not know, or quantised weights.
    """
    try:
        transformers = import_module("transformers")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "an open checkpoint as host needs transformers, which is not installed; pip install 'transformers>=5.0'"
        ) from error
    folder = model_folder(path)
    if not (folder / FOREIGN_CONFIG).is_file():
        raise FileNotFoundError(
            f"{folder} holds no {FOREIGN_CONFIG}; give a Hugging Face folder, or open the workbench's own models "
            "with workbench.model.load"
        )
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{folder / FOREIGN_CONFIG}: {error}") from error
    quantised = config.to_dict().get("quantization_config")
    if quantised:
        raise ValueError(
            f"{folder} holds quantised weights ({quantised.get('quant_method', quantised)}), which are not read; "
            "open it once with transformers in bfloat16 and save_pretrained() it into another folder"
        )
    return folder, config


def empty_model(config: Any, *, dtype: torch.dtype | None, implementation: str = "eager") -> Any:
    """The model of a configuration with computed buffers, and parameters that hold nothing.

    Args:
        dtype: of the parameters; None takes that of the configuration, or float32.
        implementation: who runs the experts, by the name that transformers knows.

    Raises:
        ValueError: transformers has no causal language model for it.
    """
    causal = import_module("transformers").AutoModelForCausalLM
    with _parameters_without_memory():
        model = causal.from_config(
            deepcopy(config), dtype=dtype or config.dtype or torch.float32, experts_implementation=implementation
        )
    return model.eval()


def load_whole(folder: Path, config: Any, *, dtype: torch.dtype | None, implementation: str) -> Any:
    """The model with its experts, as transformers loads it.

    Raises:
        OSError: no weights, or damaged files.
    """
    causal = import_module("transformers").AutoModelForCausalLM
    model = causal.from_pretrained(
        folder,
        config=deepcopy(config),
        dtype=dtype or config.dtype or torch.float32,
        experts_implementation=implementation,
        local_files_only=True,
        use_safetensors=True,
    )
    return model.eval()


def load_around_experts(folder: Path, model: Any, device: torch.device | str) -> None:
    """Fill an empty model from its folder, tensor by tensor, all but the parameters of the experts.

    Raises:
        ValueError: missing, unexpected or misshapen tensors, or experts stored in a way that is not known.
    """
    layers = find_layers(model)
    of_experts = {f"{layer.name}.{parameter}" for layer in layers for parameter in layer.shapes}
    with TensorFiles(folder) as files:
        sources = sources_of(model, files.names())
        _refuse_unused(folder, sources, model)
        casts = _casts(model)
        for target, source in sources.of.items():
            if target not in of_experts:
                for name, tensor in _converted(source, files, model).items():
                    _put(model, name, tensor, casts, device)
    model.tie_weights()
    _refuse_missing(folder, model, of_experts, sources)
    _move_buffers(model, device)


@contextmanager
def _parameters_without_memory() -> Iterator[None]:
    """Parameters that this thread registers hold shapes only; buffers are computed as ever."""
    owner = threading.get_ident()

    def emptied(module: nn.Module, name: str, parameter: Any) -> Any:
        # the hook is the process's: another thread's modules are left alone.
        if threading.get_ident() != owner or parameter.is_meta:
            return None
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    hook = register_module_parameter_registration_hook(emptied)
    try:
        yield
    finally:
        hook.remove()


def _converted(source: Source, files: TensorFiles, model: Any) -> Mapping[str, Tensor]:
    if source.converter is None:
        return {source.target: files.read(source.all_names[0])}
    converter = deepcopy(source.converter)
    for pattern, names in source.names.items():
        for name in names:
            converter.add_tensor(source.target, name, pattern, files.read(name))
    done = converter.convert(source.target, model=model, config=model.config)
    return {name: value[0] if isinstance(value, list) else value for name, value in done.items()}


def _casts(model: Any) -> list[tuple[re.Pattern[str], torch.dtype]]:
    # what stays in float32 in a half-precision model (the bias of a router, say) is only told in private.
    plan: Mapping[str, torch.dtype] = model._get_dtype_plan(model.dtype)
    return [(re.compile(pattern.replace("*", ".*")), dtype) for pattern, dtype in plan.items()]


def _put(
    model: Any,
    name: str,
    value: Tensor,
    casts: list[tuple[re.Pattern[str], torch.dtype]],
    device: torch.device | str,
) -> None:
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    held = (dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False)))[leaf]
    if value.shape != held.shape:
        raise ValueError(
            f"{name} must have shape {tuple(held.shape)}, got {tuple(value.shape)} from the files; "
            "the configuration beside them belongs to another model"
        )
    dtype = next((dtype for pattern, dtype in casts if pattern.search(name)), held.dtype)
    # a copy: the tensor read is the mapped file.
    tensor = value.to(device=device, dtype=dtype, copy=True)
    is_parameter = isinstance(held, nn.Parameter)
    setattr(module, leaf, nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)


def _move_buffers(model: Any, device: torch.device | str) -> None:
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to(device))


def _refuse_unused(folder: Path, sources: Sources, model: Any) -> None:
    ignored = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_unexpected or ()]
    strange = [
        name
        for name in sources.unused
        if not name.endswith(_FREQUENCIES) and not any(pattern.search(name) for pattern in ignored)
    ]
    if strange:
        raise ValueError(
            f"{folder} holds {_some(strange)}, which {type(model).__name__} has no place for; "
            "the configuration beside them belongs to another model"
        )


def _refuse_missing(folder: Path, model: Any, of_experts: set[str], sources: Sources) -> None:
    empty = [name for name, tensor in model.state_dict().items() if tensor.is_meta and name not in of_experts]
    absent = empty + sorted(of_experts - sources.of.keys())
    if absent:
        raise ValueError(
            f"{folder} lacks {_some(absent)}, which {type(model).__name__} asks for; copy the weights again"
        )


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    listed = ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({listed})"
