"""`config.json` of the four families to our configuration and back."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict, fields
from types import UnionType
from typing import Any

from workbench.core.check import did_you_mean
from workbench.core.spec import Spec
from workbench.model.config import ModelConfig
from workbench.model.families import FAMILIES, Family
from workbench.routers import ROUTERS

__all__ = ["family_of", "read_config", "write_config"]

_ROUTER = "top_k"

# What transformers assumes where config.json leaves a key out; the sizes have to be there.
_DEFAULTS: Mapping[str, Any] = {
    "tie_word_embeddings": False,
    "router_aux_loss_coef": 0.001,
    "norm_topk_prob": False,
    "clip_qkv": None,
    "qkv_bias": True,
}

_SAME_KEY = {"num_experts": "num_local_experts", "num_local_experts": "num_experts"}


def family_of(source: Mapping[str, Any]) -> Family:
    """The family that a `config.json` names.

    Raises:
        ValueError: none of the four.
    """
    kind = source.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        titles = ", ".join(f"{family.title} ({name})" for name, family in FAMILIES.items())
        raise ValueError(
            f"model_type {kind!r} is not supported{did_you_mean(str(kind), FAMILIES)}; the families are {titles}"
        )
    return FAMILIES[kind]


def read_config(source: Mapping[str, Any]) -> ModelConfig:
    """Our configuration of a `config.json`, spelled by transformers 4 or 5.

    Not kept, because only transformers' own training reads them: `attention_dropout` and
    `router_jitter_noise`. `router_aux_loss_coef` becomes the weight of our balance loss, which is taken per
    layer and is 1 at an even load, where transformers pools the layers and has `num_experts_per_tok`.

    Raises:
        ValueError: another architecture, a missing or wrong field, or an option that we cannot honour.
    """
    family = family_of(source)
    _refuse(source, family)
    found = {field: _value(source, key, field) for field, key in family.keys.items() if field != "dense_layers"}
    values = {**family.fixed, **found, "dense_layers": _dense_layers(source, family)}
    if "shared_width" in family.keys and found["shared_width"] < 1:
        raise _wrong("shared_expert_intermediate_size", "at least 1", found["shared_width"])
    head_dim = source.get("head_dim")
    if head_dim is None:
        head_dim = values["width"] // max(1, values["num_heads"])
    router = Spec(_ROUTER, {name: values[name] for name in ("top_k", "renormalise", "balance")})
    shape = {f.name: values[f.name] for f in fields(ModelConfig) if f.name in values}
    return ModelConfig(
        **shape,
        head_dim=_typed("head_dim", "head_dim", head_dim),
        rope_theta=_rope_theta(source, family),
        router=router,
    )


def write_config(config: ModelConfig) -> tuple[Family, dict[str, Any]]:
    """The family that can express a model, and its `config.json`, readable by transformers 4 and 5.

    The weight of a z-loss has no place there and is left out.

    Raises:
        ValueError: no family can; the message says for each what does not fit.
    """
    if config.router.name != _ROUTER:
        raise ValueError(
            f"router {config.router.name!r} has no Hugging Face form, the four families route by {_ROUTER}; "
            f"swap to {_ROUTER} before exporting, or keep the model with save_model"
        )
    values = _values(config)
    misfits = {name: _misfits(values, family) for name, family in FAMILIES.items()}
    kind = next((name for name, wrong in misfits.items() if not wrong), None)
    if kind is None:
        reasons = "; ".join(f"{FAMILIES[name].title}: {', '.join(wrong)}" for name, wrong in misfits.items())
        raise ValueError(f"no Hugging Face family can express this model. {reasons}. Keep it with save_model")
    family = FAMILIES[kind]
    data: dict[str, Any] = {"architectures": [family.architecture], "model_type": kind}
    data |= {key: values[field] for field, key in family.keys.items()}
    data |= {"head_dim": config.head_dim, "hidden_act": "silu", **family.constants}
    data |= {"rope_theta": config.rope_theta}
    data |= {"rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"}}
    return family, data


def _values(config: ModelConfig) -> dict[str, Any]:
    router = ROUTERS.get(_ROUTER)
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(router).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    values = {**asdict(config), **defaults, **config.router.args}
    # softmax over the chosen logits is the chosen probabilities divided by their sum.
    if values["score"] == "softmax_chosen":
        values |= {"score": "softmax", "renormalise": True}
    if not config.shared_width:
        values["shared_gate"] = False
    return values | {"dense_layers": config.dense_layers}


def _misfits(values: Mapping[str, Any], family: Family) -> list[str]:
    wrong = [
        f"{field} must be {needed!r}, got {values[field]!r}"
        for field, needed in family.fixed.items()
        if values[field] != needed
    ]
    if "shared_width" in family.keys and not values["shared_width"]:
        wrong.append("shared_width must be at least 1, got 0")
    whole = values["num_heads"] * values["head_dim"]
    if family.has_whole_heads and whole != values["width"]:
        wrong.append(f"num_heads * head_dim must be width={values['width']}, got {whole}")
    return wrong


def _refuse(source: Mapping[str, Any], family: Family) -> None:
    allowed: Mapping[str, tuple[Any, ...]] = {
        "hidden_act": ("silu", "swish"),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "quantization_config": (None,),
        "partial_rotary_factor": (None, 1),
    }
    for key, values in allowed.items():
        if key in source and source[key] not in values:
            raise _unsupported(f"{key}={source[key]!r}", f"only {values[0]!r} is", family)
    window = _window(source, family)
    if window is not None:
        raise _unsupported(f"a sliding window of {window} tokens", "only full attention is", family)


def _window(source: Mapping[str, Any], family: Family) -> int | None:
    """The sliding window, if it is in use and shorter than the longest sequence."""
    window = source.get("sliding_window")
    # a family without the switch uses whatever window is given.
    if not window or not source.get("use_sliding_window", "use_sliding_window" not in family.constants):
        return None
    kinds = source.get("layer_types")
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    return window if window < source.get("max_position_embeddings", 0) else None


def _dense_layers(source: Mapping[str, Any], family: Family) -> tuple[int, ...]:
    if "dense_layers" in family.fixed:
        return ()
    listed, step = source.get("mlp_only_layers") or (), source.get("decoder_sparse_step", 1)
    layers = range(_value(source, "num_hidden_layers", "num_layers"))
    return tuple(index for index in layers if index in listed or (index + 1) % step)


def _rope_theta(source: Mapping[str, Any], family: Family) -> float:
    options = source.get("rope_scaling") or source.get("rope_parameters") or {}
    if not isinstance(options, dict):
        raise _wrong("rope_parameters", "an object", options)
    kind = options.get("rope_type", options.get("type", "default"))
    if kind != "default" or any(isinstance(value, dict) for value in options.values()):
        raise _unsupported(f"rope_type {kind!r}", "only 'default' with one base for all layers is", family)
    if options.get("partial_rotary_factor", 1) != 1:
        raise _unsupported(f"partial_rotary_factor={options['partial_rotary_factor']}", "only 1 is", family)
    theta = options.get("rope_theta", source.get("rope_theta", family.rope_theta))
    return float(_typed("rope_theta", "rope_theta", theta))


def _value(source: Mapping[str, Any], key: str, field: str) -> Any:
    for spelling in (key, _SAME_KEY.get(key, key)):
        if spelling in source:
            value = source[spelling]
            break
    else:
        if key not in _DEFAULTS:
            raise ValueError(f"config.json lacks {key!r}; copy it again from its source")
        value = _DEFAULTS[key]
    if field == "num_kv_heads" and value is None:
        return _value(source, "num_attention_heads", "num_heads")
    return _typed(key, field, value)


def _typed(key: str, field: str, value: Any) -> Any:
    kinds: Mapping[str, Any] = {f.name: f.type for f in fields(ModelConfig)}
    kind = {"top_k": int, "renormalise": bool, "balance": float, **kinds}[field]
    wanted = kind.__args__ if isinstance(kind, UnionType) else (kind,)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if float in wanted and is_number:
        return float(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise _wrong(key, " or ".join(k.__name__ for k in wanted), value)
    return value


def _wrong(key: str, expected: str, got: object) -> ValueError:
    return ValueError(f"config.json: {key} must be {expected}, got {got!r}; copy it again from its source")


def _unsupported(what: str, instead: str, family: Family) -> ValueError:
    titles = ", ".join(other.title for other in FAMILIES.values())
    return ValueError(
        f"this {family.title} checkpoint uses {what}, which is not supported; {instead}. "
        f"Supported are {titles} without such options"
    )
