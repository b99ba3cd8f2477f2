"""A hub by hand, for tests of the runtime's end of the wire."""

import json
import socket

from workbench.hub.frames import split_frames
from workbench.hub.places import connection_files, read_connection
from workbench.hub.run_store import RunStore
from workbench.hub.wire import LIMIT_TO_HUB, Inbox, pack


class Caller:
    """A hub by hand: one socket, messages in the order they come."""

    def __init__(self, *, secret=None, since=0):
        (path,) = connection_files()
        known = read_connection(path)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(known.socket)
        self.inbox, self.messages, self.store = Inbox(LIMIT_TO_HUB), [], RunStore()
        self.say({"hello": 1, "secret": known.secret if secret is None else secret, "since": since, "hub": "test"})

    def say(self, body):
        self.socket.sendall(pack(body))

    def hear(self, holds):
        """Read until something holds; False when the other side hung up."""
        while not holds(self):
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                return False
            if not data:
                return False
            for message in self.inbox.feed(data):
                if isinstance(message, bytes):
                    self.store.insert(message)
                else:
                    self.messages.append(message)
        return True

    def ask(self, op, args=None, *, id="c1", actor="ana", **more):
        self.say({"command": {"id": id, "op": op, "args": args or {}, "actor": actor, "is_owner": False, **more}})
        before = len([m for m in self.messages if "ack" in m])
        assert self.hear(lambda me: len([m for m in me.messages if "ack" in m]) > before)
        return [m["ack"] for m in self.messages if "ack" in m][-1]

    def commands(self):
        """Every record by id, the newest of each."""
        data, _ = self.store.since(0, topics=["commands"])
        found = [record for frame, _ in split_frames(data) for record in json.loads(frame.payload)]
        return {record["id"]: record for record in found}

    def close(self):
        self.socket.close()
