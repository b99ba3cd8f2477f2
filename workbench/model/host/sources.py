"""Which stored tensors make up each tensor of a transformers model, by transformers' own table of conversions."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

__all__ = ["Source", "Sources", "sources_of"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a tensor of the model comes from.

    Args:
        target: its name in the model; the first one, where a stored tensor is split into several.
        names: stored tensors by the pattern that they match, experts in the order of their numbers.
        converter: transformers' operations on them; None where one stored tensor is taken as it is.
    """

    target: str
    names: Mapping[str, tuple[str, ...]]
    converter: Any | None

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every stored tensor that is needed."""
        return tuple(name for names in self.names.values() for name in names)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The sources of a checkpoint.

    Args:
        of: source by the tensor of the model.
        unused: stored tensors that the model has no place for.
    """

    of: Mapping[str, Source]
    unused: tuple[str, ...]


def sources_of(model: Any, names: Iterable[str]) -> Sources:
    """How the stored tensors of the given names map to a model's own.

    Args:
        model: of transformers; its tensors may be empty.
    """
    loading = import_module("transformers.core_model_loading")
    transforms: list[Any] = import_module("transformers.conversion_mapping").get_model_conversion_mapping(model)
    converters = [one for one in transforms if isinstance(one, loading.WeightConverter)]
    renamings = [one for one in transforms if not isinstance(one, loading.WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    prefix, state = model.base_model_prefix, model.state_dict()
    found: dict[str, dict[str, list[str]]] = {}
    patterns: dict[str, str | None] = {}
    unused = []
    for name in sorted(names, key=_natural):
        target, pattern = loading.rename_source_key(name, renamings, converters, prefix, state)
        if target not in state and name in state:
            target, pattern = loading.rename_source_key(name, [], [], prefix, state)
        if target not in state:
            unused.append(name)
            continue
        patterns.setdefault(target, pattern)
        found.setdefault(target, {}).setdefault(pattern or name, []).append(name)
    return Sources(
        of={
            target: Source(
                target=target,
                names={pattern: tuple(listed) for pattern, listed in by_name.items()},
                converter=by_pattern.get(patterns[target] or ""),
            )
            for target, by_name in found.items()
        },
        unused=tuple(unused),
    )


def _natural(name: str) -> list[tuple[int, str]]:
    # expert 10 comes after expert 9: the place in the list is the number of the expert.
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
