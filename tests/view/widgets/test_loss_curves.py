"""The widget of the view `loss_curves`."""

from workbench.view.widgets.loss_curves import LossCurvesWidget


def test_it_shows_its_group_and_says_when_there_is_none(decode, samples, trace_of):
    widget = LossCurvesWidget(trace_of(run=samples.run_group(steps=3)))
    header, arrays = decode(widget.payload)
    assert (header["view"], header["empty"]) == ("loss_curves", None)
    assert arrays
    widget.update(trace_of())
    assert decode(widget.payload)[0]["empty"].startswith("No ")
