"""The widget of the view `expert_load`."""

from workbench.view.widgets.expert_load import ExpertLoadWidget


def test_it_shows_its_group_and_says_when_there_is_none(decode, samples, trace_of):
    widget = ExpertLoadWidget(trace_of(load=samples.load_group(steps=3)))
    header, arrays = decode(widget.payload)
    assert (header["view"], header["empty"]) == ("expert_load", None)
    assert arrays
    widget.update(trace_of())
    assert decode(widget.payload)[0]["empty"].startswith("No ")
