"""Traces of a few hand-written decisions, for every test of this package."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from workbench.core.records import Batch, Output, Site
from workbench.core.sparse import SparseRouting
from workbench.trace import Recorder, Sampling, Trace, require_valid

Layers = Sequence[Sequence[Sequence[int]]]


def site_of(layer: int, expert: Sequence[Sequence[int]], fields: Mapping[str, Any]) -> Site:
    chosen = torch.tensor(expert)
    weight, kept, prob = (fields.get(name) for name in ("weight", "kept", "prob"))
    shares = (chosen >= 0) / (chosen >= 0).sum(-1, keepdim=True).clamp(min=1)
    routing = SparseRouting.from_topk(
        chosen,
        shares if weight is None else torch.tensor(weight[layer]),
        num_experts=fields.get("num_experts", 4),
        keep=None if kept is None else torch.tensor(kept[layer]),
        prob=None if prob is None else torch.tensor(prob[layer]),
    )
    known = {name: fields[name] for name in ("iteration", "is_shadow") if name in fields}
    router = fields.get("router", "top_k")
    return Site(
        **{"layer": layer, "iteration": 0, "module": f"layers.{layer}", "router": router} | known, routing=routing
    )


@pytest.fixture(scope="session")
def traced() -> Callable[..., Trace]:
    """A trace of forward passes, each a mapping.

    `expert` holds the chosen experts as nested lists of layer, token and slot, empty for a layer without a router.
    Beside it may stand `weight`, `kept` and `prob` of the same form, `ids`, `domain`,
    `num_experts`, `router`, `phase`, `step`, `is_probe`, `iteration`, and `also`: a list of further
    decisions about the same tokens.
    """

    def make(*passes: Mapping[str, Any]) -> Trace:
        recorder = Recorder(sampling=Sampling(train_every=1, train_tokens=10**6, prob=True))
        for fields in passes:
            decisions = [fields, *fields.get("also", ())]
            sites = [site_of(layer, e, one) for one in decisions for layer, e in enumerate(one["expert"]) if e]
            tokens = len(next(filter(None, fields["expert"])))
            names = tuple(dict.fromkeys(fields.get("domain", ())))
            domain = torch.tensor([[names.index(name) for name in fields["domain"]]]) if names else None
            ids = np.asarray(fields.get("ids", np.arange(tokens)))
            batch = Batch(token_ids=torch.from_numpy(ids)[None], domain=domain, domains=names)
            recorder.add(
                batch,
                Output(logits=torch.empty(1, tokens, 0), sites=tuple(sites)),
                phase=fields.get("phase", "train"),
                step=fields.get("step", 1),
                is_probe=fields.get("is_probe", False),
                sequence=torch.tensor([0]),
                position=torch.tensor([0]),
            )
        trace = recorder.trace()
        require_valid(trace)
        return trace

    return make


@pytest.fixture(scope="session")
def draws() -> Callable[..., list]:
    """Random decisions as nested lists: layer, token, slot; distinct experts in a token, some slots empty."""

    def make(layers: int, tokens: int, experts: int, top_k: int, *, seed: int = 0, empty: float = 0.2) -> list:
        generator = np.random.default_rng(seed)
        expert = generator.random((layers, tokens, experts)).argsort(-1)[..., :top_k]
        return np.where(generator.random(expert.shape) < empty, -1, expert).tolist()

    return make
