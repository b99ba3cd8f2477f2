"""The widget of the view `offload_timeline`."""

from workbench.view.widgets.offload_timeline import OffloadTimelineWidget


def test_it_shows_its_group_and_says_when_there_is_none(decode, samples, trace_of):
    widget = OffloadTimelineWidget(trace_of(offload=samples.offload_group()))
    header, arrays = decode(widget.payload)
    assert (header["view"], header["empty"]) == ("offload_timeline", None)
    assert arrays
    widget.update(trace_of())
    assert decode(widget.payload)[0]["empty"].startswith("This run keeps every expert in memory")
