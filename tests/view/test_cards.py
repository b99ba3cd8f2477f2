"""What a notebook says of a session."""

from workbench.session import Session
from workbench.view import LiveWidget


def test_a_session_says_what_it_trains_and_where_it_is_kept(tmp_path):
    with Session(model="tiny", batch_size=1, sequence_length=16, folder=tmp_path / "run") as session:
        card = session._repr_html_()
    for word in ("top_k", "mixed", "4 blocks", str(tmp_path / "run")):
        assert word in card


def test_a_host_that_takes_widgets_gets_the_live_one():
    with Session(model="tiny", batch_size=1, sequence_length=16) as session:
        widget = session._display_()
        assert isinstance(widget, LiveWidget)
        assert widget.run_id == session.live.run_id
        assert session.live.is_open
        widget.close()
