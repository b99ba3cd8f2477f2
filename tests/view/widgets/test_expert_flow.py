"""The widget of the view `expert_flow`."""

from workbench.view.widgets.expert_flow import ExpertFlowWidget


def test_it_shows_its_group_and_says_when_there_is_none(decode, samples, trace_of):
    widget = ExpertFlowWidget(trace_of(routing=samples.routing_group((("eval", 1, "a b"),))))
    header, arrays = decode(widget.payload)
    assert (header["view"], header["empty"]) == ("expert_flow", None)
    assert arrays
    widget.update(trace_of())
    assert decode(widget.payload)[0]["empty"].startswith("No ")
