"""A run that trains nothing: it announces itself, publishes invented numbers and answers commands.

For everybody who builds on the hub: `python tests/hub/fake_runtime.py --steps-per-second 10`. What it shows says that
it is synthetic.
"""

import argparse
import asyncio
import json
import math
import os
import random
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from workbench.hub import places
from workbench.hub.commands import Ledger, check_choice, check_command, python
from workbench.hub.frames import DELTA, WHOLE
from workbench.hub.run_store import RunStore
from workbench.hub.schema import CommandError
from workbench.hub.wire import LIMIT_TO_RUNTIME, Inbox, pack
from workbench.payloads.container import encode

SERIES = ("loss", "lr", "grad_norm", "tokens_per_second", "wall_seconds")
EXTRAS = ("entropy", "cv", "dead_fraction", "dropped_fraction")
ROUTERS = {"top_k": "", "switch": "top-1 with capacity", "expert_choice": "experts choose tokens"}
SAID = ["Drawn at random by a program for tests; no model was trained."]
TOKENS = 4096


def loss_arrays(steps, seed):
    noise = np.random.default_rng(seed).normal(0, 0.05, len(steps))
    step = np.asarray(steps, np.float64)
    values = (2 + 4 * np.exp(-step / 200) + noise, np.full_like(step, 3e-3), 1 + noise, 9000 + 100 * noise, step / 10)
    arrays = {"step": np.asarray(steps, np.int32), **dict(zip(SERIES, values, strict=True))}
    kept = step[step % 50 == 0]
    arrays["eval_step"] = kept.astype(np.int32)
    arrays["eval_loss"] = (1 + 2 * np.exp(-kept / 200))[:, None].repeat(2, 1).astype(np.float32)
    return arrays


class FakeRuntime:
    """A source of frames on a Unix socket, driven by an asyncio loop."""

    def __init__(self, *, layers=4, experts=8, owner="ana", folder=None, run_id=None, shared=False, seed=0):
        self.store, self.ledger = RunStore(), Ledger()
        self.folder, self.experts, self.layers = folder, experts, layers
        self.random = random.Random(seed)
        self.history, self.events, self.records, self.left = [], [], {}, math.inf
        self.asked, self.watching, self.silent, self.writers = [], [], False, set()
        self.id = run_id or places.new_run_id()
        socket = places.socket_path(self.id, folder)
        words = {"title": "Invented run", "owner": owner}
        now = time.time()
        self.connection = places.Connection(
            id=self.id, socket=str(socket), secret="fake", pid=os.getpid(), started_at=now, **words
        )
        self.state = {
            "id": self.id,
            "status": "running",
            "step": 0,
            "target_step": None,
            "tokens": 0,
            "error": None,
            "tokens_per_second": 9000.0,
            "loss": None,
            "model": "none",
            "router": "top_k",
            "router_args": {},
            "corpus": "none",
            "seed": seed,
            "num_layers": layers,
            "num_experts": experts,
            "top_k": 2,
            **words,
            "learning_rate": 3e-3,
            "driver": None,
            "started_at": now,
            "folder": None,
            "pid": os.getpid(),
            "kind": "command line",
            "steering": [],
            "shadow": None,
            "frames_per_second": 10,
            "offload": None,
            "can_undo": None,
            "can_rewind": False,
            "idle_experts": 0,
            "overloaded_experts": 0,
            "choices": {"router": [{"name": name, "changes": text} for name, text in ROUTERS.items()]},
            "python": "# an invented run has no code",
            "is_shared": shared,
            "badge": "synthetic",
        }

    async def start(self):
        self.server = await asyncio.start_unix_server(self.greet, self.connection.socket)
        Path(self.connection.socket).chmod(0o600)
        self.publish_state()
        places.write_connection(self.connection, self.folder)

    async def close(self, status="stopped"):
        if status:
            self.state["status"] = status
            self.publish_state()
            await asyncio.sleep(0.05)
        self.server.close()
        for writer in list(self.writers):
            writer.close()
        places.remove_connection(self.connection, self.folder)

    async def train(self, steps_per_second):
        while self.state["status"] != "stopped":
            await asyncio.sleep(1 / steps_per_second)
            if self.state["status"] == "running" and self.left > 0:
                self.one_step()
                self.left -= 1
                if self.left == 0:
                    self.state["status"], self.left = "paused", math.inf
                    self.publish_state()

    def one_step(self):
        step = self.state["step"] = self.state["step"] + 1
        self.state["tokens"] = step * TOKENS
        self.history.append(step)
        for topic, arrays_of in (("loss_curves", self.loss_payload), ("expert_load", self.load_payload)):
            is_whole = step == 1 or self.store.needs_whole(topic)
            self.put(topic, arrays_of(self.history if is_whole else [step], is_whole), WHOLE if is_whole else DELTA)
        self.events = []
        self.state["loss"] = float(loss_arrays([step], step)["loss"][0])
        self.publish_state()

    def loss_payload(self, steps, is_whole):
        parts = [loss_arrays([step], step) for step in steps]
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        header = {"series": list(SERIES), "domains": ["left", "right"], "events": self.events}
        header |= {"units": {"loss": "nats per token", "eval_loss": "bits per byte"}}
        return self.encoded("loss_curves", header, arrays, {} if is_whole else dict.fromkeys(arrays, "append"))

    def load_payload(self, steps, is_whole):
        shape = (len(steps), self.layers, self.experts)
        load = np.random.default_rng(steps[0]).dirichlet(np.full(self.experts, 5.0), shape[:2]).astype(np.float32)
        for part in self.state["steering"]:
            if part["kind"] == "ban":
                load[:, part["layer"], part["expert"]] = 0
        load /= load.sum(-1, keepdims=True)
        arrays = {
            "step": np.asarray(steps, np.int32),
            "row": np.asarray(steps, np.int32) - 1,
            "tokens": np.full(len(steps), float(TOKENS)),
            "load": load,
            "total": (load.astype(np.float64) * TOKENS).cumsum(0),
            "count": np.full((len(steps), self.layers, 1), float(TOKENS)).cumsum(0),
            **{name: np.full(shape[:2], 0.1 * place, np.float32) for place, name in enumerate(EXTRAS)},
        }
        arrays = {f"train.{name}": values for name, values in arrays.items()}
        grow = dict.fromkeys(arrays, "append") | {"train.total": "cumulate", "train.count": "cumulate"}
        header = {"phases": ["train"], "extras": list(EXTRAS), "events": self.events}
        arrays["layer"] = np.arange(self.layers, dtype=np.int32)
        return self.encoded("expert_load", header, arrays, {} if is_whole else grow)

    def encoded(self, view, header, arrays, grow):
        return encode(view, {"badge": "synthetic", "statements": SAID, **header, "grow": grow}, arrays)

    def put(self, topic, payload, kind):
        self.store.put(topic, payload, kind=kind, step=self.state["step"])

    def publish_state(self):
        self.put("state", json.dumps(self.state).encode(), WHOLE)

    def publish_record(self, command, status, reason="", result=None):
        record = {**vars(command), "status": status, "step": self.state["step"], "reason": reason}
        record |= {"time": time.time(), "python": python(command.op, command.args), "result": result or {}}
        self.records[command.id] = record
        is_whole = self.store.needs_whole("commands")
        shown = list(self.records.values())[-1000:] if is_whole else [record]
        self.put("commands", json.dumps(shown).encode(), WHOLE if is_whole else DELTA)

    async def greet(self, reader, writer):
        inbox, sender = Inbox(LIMIT_TO_RUNTIME), None
        self.writers.add(writer)
        with suppress(OSError, ValueError):
            while data := await reader.read(65536):
                for message in inbox.feed(data):
                    if sender is None:
                        if message.get("secret") != self.connection.secret:
                            raise OSError("wrong secret")
                        writer.write(pack({"hello": 1, **self.state}))
                        sender = asyncio.create_task(self.send(writer, message["since"]))
                    else:
                        self.take(message, writer)
        if sender is not None:
            sender.cancel()
        self.writers.discard(writer)
        writer.close()

    async def send(self, writer, since):
        news = asyncio.Event()
        forget = self.store.listen(news.set)
        with suppress(OSError):
            while True:
                data, since = self.store.since(since, limit_bytes=2**20)
                if data:
                    writer.write(pack(data))
                    await writer.drain()
                else:
                    await news.wait()
                    news.clear()
        forget()

    def take(self, message, writer):
        self.asked.append(message)
        if "watching" in message:
            self.watching = message["watching"]
        elif not self.silent:
            writer.write(pack({"ack": self.answer(message["command"])}))

    def answer(self, message):
        try:
            command = check_command({name: value for name, value in message.items() if name != "is_broadcast"})
            known = self.ledger.answer_to(command)
            if known is not None:
                return known
            check_choice(command, self.state)
            if self.state["driver"] is None or command.op == "take_over":
                self.state["driver"] = command.actor
            if command.actor != self.state["driver"] and not message.get("is_broadcast"):
                raise CommandError(403, f"this run is driven by {self.state['driver']}; take over first")
            if command.op == "set_cache_size" and not self.state.get("offload"):
                raise CommandError(409, "an invented run offloads nothing")
        except CommandError as error:
            return {"id": message.get("id"), "status": "refused", "code": error.code, "reason": error.reason}
        ack = {"id": command.id, "status": "accepted", "code": 202, "reason": "", "step": self.state["step"]}
        self.ledger.note(command, ack)
        self.publish_record(command, "accepted")
        self.apply(command)
        return ack

    def apply(self, command):
        op, args, state = command.op, command.args, self.state
        result = {}
        if op in ("pause", "resume", "stop"):
            state["status"] = {"pause": "paused", "resume": "running", "stop": "stopped"}[op]
        elif op == "step":
            state["status"], self.left = "running", args["count"]
        elif op in ("set_cache_size", "set_policy", "set_prefetcher"):
            place = {"set_cache_size": "slots", "set_policy": "policy", "set_prefetcher": "prefetcher"}[op]
            state["offload"] = {**(state["offload"] or {}), place: args.get("slots", args.get("name"))}
        elif op == "set_rate":
            state["frames_per_second"] = args["frames_per_second"]
        elif op == "swap_router":
            result = {"before": state["router"], "after": args["name"]}
            state.update(can_undo=f"the change from {state['router']} to {args['name']}", router=args["name"])
        elif op in ("pin_expert", "ban_expert", "bias_expert"):
            place = {"layer": args["layer"], "expert": args["expert"]}
            state["steering"] = [part for part in state["steering"] if {**part, **place} != part]
            if args.get("bias") != 0:
                state["steering"].append({**place, "kind": op.split("_")[0], "bias": args.get("bias", 0)})
        elif op == "generate":
            result = {"text": args["prompt"] + " and so on."}
        if op in ("swap_router", "annotate"):
            short = args.get("text") or f"router changed to {args['name']}"
            self.events = [*self.events, {"step": state["step"], "short": short, "label": short, "detail": ""}]
        self.publish_record(command, "applied", result=result)
        self.publish_state()


async def main():
    parser = argparse.ArgumentParser(description="A run that trains nothing.")
    parser.add_argument("--steps-per-second", type=float, default=10.0)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--owner", default="ana")
    parser.add_argument("--shared", action="store_true")
    options = parser.parse_args()
    sizes = {"layers": options.layers, "experts": options.experts}
    runtime = FakeRuntime(**sizes, owner=options.owner, shared=options.shared)
    await runtime.start()
    sys.stdout.write(f"{runtime.id}\n")
    sys.stdout.flush()
    try:
        await runtime.train(options.steps_per_second)
    finally:
        await runtime.close()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
