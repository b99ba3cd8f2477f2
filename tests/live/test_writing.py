"""A text that is written between two steps."""

import pytest

from workbench.hub.frames import split_frames
from workbench.live import writing


def test_the_text_comes_piece_by_piece_and_ends_as_ask_would_write_it(session, decode, monkeypatch):
    monkeypatch.setattr(writing, "_SHOW_SECONDS", 0.0)
    run = session.live.open()
    shown = []
    run.store.listen(lambda: shown.append(run.store.since(0, topics=["generation"])[0]))
    written = writing.write(run, {"prompt": "def ", "max_new_tokens": 5, "temperature": 0.0, "seed": 0})
    assert written.text == session.ask("def ", max_new_tokens=5, temperature=0.0).text
    texts = [decode(next(split_frames(data))[0].payload)[0] for data in shown if data]
    assert len({header["text"] for header in texts}) > 2
    assert [header["status"] for header in texts][-1] == "finished"
    assert written.text.startswith(texts[0]["text"])


def test_settings_out_of_range_are_an_error(session):
    with pytest.raises(ValueError, match="temperature"):
        writing.write(session.live, {"prompt": "a", "temperature": -1})
