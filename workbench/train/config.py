"""The training configuration: everything beside model and data that a resumed run must know."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from typing import Any, Literal, get_args

from workbench.core.check import at_least, did_you_mean, one_of, within
from workbench.core.html import facts
from workbench.train.arguments import check_type
from workbench.train.aux_schedule import parse_schedule

__all__ = ["TrainConfig"]

ScheduleName = Literal["wsd", "cosine"]
DTypeName = Literal["auto", "float32", "bfloat16"]
BalanceOver = Literal["micro_batch", "global_batch"]

_AT_LEAST = {
    **dict.fromkeys(("batch_size", "sequence_length", "micro_batches", "keep_checkpoints", "evaluation_windows"), 1),
    **dict.fromkeys(("learning_rate", "warmup_steps", "weight_decay", "grad_clip", "evaluate_every"), 0),
    "checkpoint_every": 0,
    "num_steps": 1,
}
_SHARES = ("decay_share", "final_share", "beta1", "beta2")
_WORDS: Mapping[str, Any] = {"schedule": ScheduleName, "dtype": DTypeName, "balance_over": BalanceOver}
_TABLES = {"aux_weights": "{'z': 0.001}", "aux_schedule": "{'balance': 'linear:first=1,last=0.1'}"}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained.

    Args:
        seed: of weights, data order and noise.
        batch_size: sequences per micro-batch.
        sequence_length: tokens per sequence.
        micro_batches: gradients summed over so many batches before a step.
        learning_rate: after warmup.
        warmup_steps: linear rise from 0.
        schedule: `wsd` (warmup, stable, linear decay) or `cosine`.
        num_steps: the step at which the decay ends; None never decays, so that a run can always go on.
        decay_share: last part of `num_steps` over which `wsd` decays [1].
        final_share: learning rate at the end, as a share of the highest [1].
        weight_decay: of matrices; vectors have none.
        beta1, beta2: of AdamW.
        grad_clip: largest gradient norm; 0 for no limit.
        balance_over: tokens over which losses count the load of the experts: each micro-batch alone, or all of
            the step so far, on all ranks. The load is what routers are handed: one whose own balance loss
            counts in another way, such as first choices only, goes on counting by micro-batch.
        aux_weights: weights of auxiliary losses, in place of the router's or beside them, such as
            `{"entropy": 1e-3, "z": 1e-3, "balance": 0.02}`.
        aux_schedule: a factor on the weight of a loss over the run, such as `{"balance": "cosine:first=1,last=0"}`;
            also `linear:first=1,last=0.1` and `step:first=1,last=0.005,at=0.5`. Ends at `num_steps`.
        dtype: of the matrix products; `auto` takes bfloat16 where the device is fast at it.
        recompute: forget activations and make them again in backward.
        evaluate_every: steps between held-out evaluations; 0 for none.
        evaluation_windows: sequences per domain in an evaluation.
        checkpoint_every: steps between checkpoints; 0 for only at the end.
        keep_checkpoints: how many of the newest are kept.

    Raises:
        ValueError: a value of another type or out of its range.
    """

    seed: int = 0
    batch_size: int = 16
    sequence_length: int = 256
    micro_batches: int = 1
    learning_rate: float = 3e-3
    warmup_steps: int = 20
    schedule: ScheduleName = "wsd"
    num_steps: int | None = None
    decay_share: float = 0.2
    final_share: float = 0.1
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    grad_clip: float = 1.0
    balance_over: BalanceOver = "micro_batch"
    aux_weights: Mapping[str, float] = field(default_factory=dict)
    aux_schedule: Mapping[str, str] = field(default_factory=dict)
    dtype: DTypeName = "auto"
    recompute: bool = False
    evaluate_every: int = 0
    evaluation_windows: int = 8
    checkpoint_every: int = 100
    keep_checkpoints: int = 3

    def __post_init__(self) -> None:
        self.check(vars(self))
        if self.schedule == "cosine" and self.num_steps is None:
            raise ValueError("a cosine schedule needs num_steps, the step at which it ends; got None")
        if self.aux_schedule and self.num_steps is None:
            raise ValueError("aux_schedule needs num_steps, the step at which it ends; got None")

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> None:
        """Nothing, if every option exists and has a value that is allowed, each for itself.

        Raises:
            ValueError: one is unknown, of another type, or out of its range; the message names it.
        """
        types = {field.name: field.type for field in fields(cls)}
        for name, value in options.items():
            if name not in types:
                hint = did_you_mean(name, types)
                raise ValueError(f"there is no training option {name!r}{hint}; the options: {', '.join(types)}")
            check_type(name, value, types[name])
            if name in _AT_LEAST and value is not None:
                at_least(name, value, _AT_LEAST[name])
            if name in _SHARES:
                within(name, value, 0, 1)
            if name in _WORDS:
                one_of(name, value, get_args(_WORDS[name]))
            if name in _TABLES:
                _check_table(name, value)

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "TrainConfig":
        """The configuration saved by `to_json`.

        Raises:
            ValueError: an option that this version does not know, or a value that it does not allow.
        """
        cls.check(data)
        return cls(**data)

    def _repr_html_(self) -> str:
        return facts("TrainConfig", self.to_json())


def _check_table(name: str, value: object) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(loss, str) for loss in value):
        raise ValueError(f"{name} must say something of each loss by its name, such as {_TABLES[name]}; got {value!r}")
    for loss, said in value.items():
        label = f"{name} of {loss!r}"
        if name == "aux_schedule":
            check_type(label, said, str)
            parse_schedule(label, said)
        else:
            check_type(label, said, float)
            if not isfinite(said):
                raise ValueError(f"{label} must be a finite number, got {said}")
