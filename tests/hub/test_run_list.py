"""The list of runs comes at once, on every change, at most twice a second, and only with one's own runs."""

import asyncio
import json

from workbench.hub.run_list import RunList
from workbench.hub.stream import Sink


class Page(Sink):
    def __init__(self):
        self.lists, self.is_busy = [], False

    def write(self, data):
        self.lists.append(json.loads(data)["runs"])

    def is_writing(self):
        return self.is_busy

    def close(self, code, reason):
        raise AssertionError("the list closes nobody")


def test_changes_come_at_most_twice_a_second_and_the_last_is_never_lost():
    async def scenario():
        state, page = {"step": 0}, Page()
        runs = RunList(lambda user: [dict(state)], frame_message=bytes)
        runs.join(page, "ana")
        assert page.lists == [[{"step": 0}]]
        for step in range(1, 61):
            state["step"] = step
            runs.changed()
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.6)
        assert 3 <= len(page.lists) <= 5
        assert page.lists[-1] == [{"step": 60}]
        runs.changed()
        await asyncio.sleep(0.6)
        assert len(page.lists) <= 5
        runs.close()

    asyncio.run(scenario())


def test_everybody_sees_their_own_and_who_is_busy_gets_it_later():
    async def scenario():
        version = [1]
        runs = RunList(lambda user: [{"owner": user, "version": version[0]}], frame_message=bytes)
        pages = {name: Page() for name in ("ana", "bob", "gone")}
        for name, page in pages.items():
            runs.join(page, name)
        runs.leave(pages["gone"])
        runs.leave(pages["gone"])
        assert runs.num_viewers == 2
        pages["bob"].is_busy, version[0] = True, 2
        runs.changed()
        await asyncio.sleep(0.05)
        assert pages["ana"].lists[-1] == [{"owner": "ana", "version": 2}]
        assert pages["bob"].lists[-1] == [{"owner": "bob", "version": 1}]
        pages["bob"].is_busy = False
        await asyncio.sleep(0.6)
        assert pages["bob"].lists[-1] == [{"owner": "bob", "version": 2}]
        assert pages["gone"].lists == [[{"owner": "gone", "version": 1}]]
        runs.close()

    asyncio.run(scenario())
