"""Small traces made by hand, in the schema that the recorder writes."""

import json
import re

import numpy as np
import xarray as xr

DOMAINS = ("english_prose", "python_code", "c_code", "mathematics", "german", "french", "json")
TEXT = "def add(a, b):\n    return a + b\n\nThe ship sailed at dawn, <script>alert(1)</script> and 3 * 7 = 21.\n"


def run_group(steps: int = 200, every: int = 20, domains: tuple[str, ...] = DOMAINS) -> xr.Dataset:
    rng = np.random.default_rng(0)
    step = np.arange(1, steps + 1)
    loss = 2.1 + 6.1 * np.exp(-step / (steps / 5)) + rng.normal(0, 0.09, steps)
    loss[int(steps * 0.6) :] += 0.5 * np.exp(-(step[int(steps * 0.6) :] - steps * 0.6) / (steps / 20))
    held_out = np.full((steps, len(domains)), np.nan, np.float32)
    for at in sorted({0, *range(every - 1, steps, every), steps - 1}):
        for i in range(len(domains)):
            held_out[at, i] = 1.1 + 0.28 * i + (5.2 - 0.2 * i) * np.exp(-at / (steps / 4))
    return xr.Dataset(
        {
            "loss": ("step", loss.astype(np.float32), {"units": "nat/token"}),
            "lr": ("step", (3e-3 * np.minimum(1, step / 20)).astype(np.float32), {"units": "1"}),
            "grad_norm": ("step", (0.4 + rng.random(steps)).astype(np.float32), {"units": "1"}),
            "tokens_per_second": (
                "step",
                (5200 + 300 * rng.normal(size=steps)).astype(np.float32),
                {"units": "token/s"},
            ),
            "tokens": ("step", step * 4096, {"units": "token"}),
            "wall_seconds": ("step", step * 0.59, {"units": "s"}),
            "eval_loss": (("step", "domain"), held_out, {"units": "bit/byte"}),
        },
        coords={"step": step, "domain": text_array(list(domains))},
    )


def load_group(
    steps: int = 200, layers: int = 4, experts: int = 16, dead: tuple[int, int] | None = (2, 3)
) -> xr.Dataset:
    rng = np.random.default_rng(1)
    drift = np.cumsum(rng.normal(0, 0.06, (steps, layers, experts)), 0) + rng.normal(0, 0.5, (1, layers, experts))
    drift[int(steps * 0.6) :] *= 0.15
    load = np.exp(drift)
    if dead is not None:
        load[:, dead[0], dead[1]] = 0
        load[:, 0, min(5, experts - 1)] *= 4
    load = (load / load.sum(-1, keepdims=True)).astype(np.float32)
    entropy = -(load * np.log(np.maximum(load, 1e-9))).sum(-1)
    return xr.Dataset(
        {
            "load": (("step", "layer", "expert"), load, {"units": "1"}),
            "entropy": (("step", "layer"), entropy, {"units": "nat"}),
            "prob_mean": (("step", "layer", "expert"), load, {"units": "1"}),
            "cv": (("step", "layer"), load.std(-1) / load.mean(-1), {"units": "1"}),
            "dead_fraction": (("step", "layer"), (load == 0).mean(-1, dtype=np.float32), {"units": "1"}),
            "dropped_fraction": (("step", "layer"), np.zeros((steps, layers), np.float32), {"units": "1"}),
            "tokens": ("step", np.full(steps, 4096), {"units": "token"}),
        },
        coords={
            "step": np.arange(1, steps + 1),
            "phase": ("step", text_array(["train"] * steps)),
            "layer": np.arange(layers),
            "expert": np.arange(experts),
        },
    )


def pieces_of(text: str) -> list[str]:
    """Words with their leading space, and single signs, as a trained tokenizer would cut them."""
    return re.findall(r" ?\w+|\n| +|[^\w\s]", text)


def routing_group(
    passages: tuple[tuple[str, int, str], ...] = (("eval", 50, TEXT), ("eval", 100, TEXT), ("eval", 150, TEXT)),
    *,
    layers: int = 4,
    experts: int = 16,
    slots: int = 2,
    decode: str = "",
    swap_step: int = 10**9,
) -> xr.Dataset:
    """Passages of (phase, step, text); `decode` continues the last one as text the model wrote.

    From `swap_step` on the layers have another router, so the recorder has opened a second site per layer.
    """
    rng = np.random.default_rng(2)
    rows = [(phase, step, i, piece) for phase, step, text in passages for i, piece in enumerate(pieces_of(text))]
    if decode:
        at = rows[-1][2] + 1
        rows += [("decode", rows[-1][1], at + i, piece) for i, piece in enumerate(pieces_of(decode))]
    count = len(rows)
    vocabulary = {piece: i for i, piece in enumerate(sorted({row[3] for row in rows}))}
    favourite = {piece: rng.permutation(experts) for piece in sorted(vocabulary)}
    step = np.array([row[1] for row in rows], np.int32)
    routers = ["top_k", "expert_choice"] if (step >= swap_step).any() else ["top_k"]
    sites = layers * len(routers)
    expert = np.full((sites, count, slots), -1, np.int16)
    weight = np.zeros((sites, count, slots), np.float32)
    kept = np.zeros((sites, count, slots), bool)
    for i, row in enumerate(rows):
        for layer in range(layers):
            site = layer + layers * int(len(routers) > 1 and row[1] >= swap_step)
            shift = layer * 3 + (rng.integers(experts) if rng.random() < 0.12 else 0)
            expert[site, i] = (favourite[row[3]][:slots] + shift) % experts
            weight[site, i] = np.sort(rng.dirichlet(np.ones(slots) * 2))[::-1]
            kept[site, i] = rng.random(slots) > 0.03
    return xr.Dataset(
        {
            "expert": (("site", "token", "slot"), expert),
            "weight": (("site", "token", "slot"), weight, {"units": "1"}),
            "kept": (("site", "token", "slot"), kept),
            "is_routed": (("site", "token"), (expert >= 0).any(-1)),
        },
        coords={
            "layer": ("site", np.tile(np.arange(layers, dtype=np.int16), len(routers))),
            "iteration": ("site", np.zeros(sites, np.int16)),
            "module": ("site", text_array([f"blocks.{i % layers}.feed_forward" for i in range(sites)])),
            "router": ("site", text_array(list(np.repeat(routers, layers)))),
            "is_shadow": ("site", np.zeros(sites, bool)),
            "num_experts": ("site", np.full(sites, experts, np.int16)),
            "sequence": ("token", np.zeros(count, np.int32)),
            "position": ("token", np.array([row[2] for row in rows], np.int32)),
            "token_id": ("token", np.array([vocabulary[row[3]] for row in rows], np.int32)),
            "step": ("token", step),
            "phase": ("token", text_array([row[0] for row in rows])),
            "domain": ("token", text_array(["python_code" if row[0] == "eval" else "" for row in rows])),
            "piece": ("token", text_array([row[3] for row in rows])),
            "is_probe": ("token", np.array([row[0] == "eval" for row in rows])),
        },
        attrs={"sampling": "training: none; probe text: every 50th step; prefill and decode: every token"},
    )


def text_array(words: list[str]) -> np.ndarray:
    """Text as a trace holds it."""
    return np.array(words, dtype=np.dtypes.StringDType())


def control_group(step: int = 120) -> xr.Dataset:
    args = {"name": "expert_choice", "args": {"capacity_factor": 2.0}}
    result = "top_k -> expert_choice: all 16 experts per layer kept with their optimiser state; 4 carried over"
    return xr.Dataset(
        {
            "time_ns": ("event", np.array([10**18]), {"units": "ns"}),
            "op": ("event", text_array(["swap_router"])),
            "args_json": ("event", text_array([json.dumps(args)])),
            "actor": ("event", text_array(["demo"])),
            "accepted_step": ("event", np.array([step - 1])),
            "applied_step": ("event", np.array([step])),
            "result": ("event", text_array([result])),
        }
    )


def with_shadow(routing: xr.Dataset, *, disagree: float = 0.4, router: str = "switch") -> xr.Dataset:
    """The same tokens with a second router per layer that only watches, and chooses otherwise now and then."""
    rng = np.random.default_rng(3)
    shadow = routing.copy(deep=True)
    shadow["router"] = ("site", text_array([router] * shadow.sizes["site"]))
    shadow["is_shadow"] = ("site", np.ones(shadow.sizes["site"], bool))
    changed = rng.random(shadow["expert"].shape[:2]) < disagree
    shadow["expert"] = shadow["expert"].where(~xr.DataArray(changed, dims=("site", "token")), 0).astype(np.int16)
    shadow["expert"][:, :, 1:] = -1
    shadow["kept"] = shadow["expert"] >= 0
    shadow["weight"] = shadow["weight"].where(shadow["kept"], 0)
    both = xr.concat(
        [routing, shadow], "site", data_vars="minimal", coords="minimal", compat="override", join="override"
    )
    return both.assign_attrs(routing.attrs)


def residency_group(samples: int = 20, layers: int = 4, experts: int = 8, on_device: int = 3) -> xr.Dataset:
    """Each sample another expert of each layer takes the place of the oldest one on the device; the last is on disk."""
    tier = np.ones((samples, layers, experts), np.int8)
    for at in range(samples):
        for layer in range(layers):
            held = [(at + layer + i) % (experts - 1) for i in range(on_device)]
            tier[at, layer, held] = 0
    tier[:, :, experts - 1] = 2
    return xr.Dataset(
        {"tier": (("sample", "layer", "expert"), tier)},
        coords={"step": ("sample", np.arange(samples) + 5), "layer": np.arange(layers), "expert": np.arange(experts)},
    )


def offload_group(tokens: int = 12, layers: int = 4) -> xr.Dataset:
    """Two requests per layer and token; the fourth token waits for expert 7 of layer 2, the longest of all."""
    rows = []
    for token in range(tokens):
        for layer in range(layers):
            rows.append((token, layer, layer, "hit", 0, 0.0))
            if (token + layer) % 3 == 0:
                rows.append((token, layer, 5, "miss", 4096, 0.002 + 0.0001 * token))
                rows.append((token, layer, 6, "evict", 4096, 0.0))
            elif (token + layer) % 3 == 1:
                rows.append((token, layer, 4, "prefetch", 4096, 0.0))
            else:
                rows.append((token, layer, 4, "prefetch_late", 4096, 0.001))
        if token == 3:
            rows.append((token, 2, 7, "miss", 8192, 0.025))
    token, layer, expert, kind, size, stall = zip(*rows, strict=True)
    return xr.Dataset(
        {
            "time_ns": ("event", np.arange(len(rows)) * 1_000_000, {"units": "ns"}),
            "step": ("event", np.array(token, np.int64) + 200),
            "token": ("event", np.zeros(len(rows), np.int64)),
            "layer": ("event", np.array(layer, np.int16)),
            "expert": ("event", np.array(expert, np.int16)),
            "kind": ("event", text_array(list(kind))),
            "bytes": ("event", np.array(size, np.int64), {"units": "B"}),
            "stall_seconds": ("event", np.array(stall), {"units": "s"}),
        }
    )


def whole_trace() -> xr.DataTree:
    """A training run with a router swap, probe texts, and a generation."""
    probe = [("eval", step, TEXT) for step in (50, 100, 150, 200)]
    routing = routing_group(
        (*probe, ("prefill", 200, "The ship ")), decode="sailed at dawn and the sea 3 was 7.\nThe ship", swap_step=120
    )
    trace = xr.DataTree.from_dict(
        {"/run": run_group(), "/load": load_group(), "/routing": routing, "/control": control_group()}
    )
    trace.attrs.update(
        schema="moe-workbench.trace/1",
        created_at="2026-11-20T12:00:00Z",
        seed=0,
        device="cpu, 2 cores",
        tokenizer="byte",
        versions=json.dumps({"workbench": "0.1.0", "torch": "2.13.0"}),
        model=json.dumps({"preset": "tiny", "num_layers": 4}),
    )
    return trace
