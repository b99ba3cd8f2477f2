"""The widget of the view `residency`."""

from workbench.view.widgets.residency import ResidencyWidget


def test_it_shows_its_group_and_says_when_there_is_none(decode, samples, trace_of):
    widget = ResidencyWidget(trace_of(residency=samples.residency_group()))
    header, arrays = decode(widget.payload)
    assert (header["view"], header["empty"]) == ("residency", None)
    assert arrays
    widget.update(trace_of())
    assert decode(widget.payload)[0]["empty"].startswith("This run keeps every expert in memory")
