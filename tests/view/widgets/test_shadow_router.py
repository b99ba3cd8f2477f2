"""The widget of the view `shadow_router`."""

from workbench.view.widgets.shadow_router import ShadowRouterWidget


def test_it_shows_its_group_and_says_when_there_is_none(decode, samples, trace_of):
    widget = ShadowRouterWidget(trace_of(routing=samples.with_shadow(samples.routing_group((("eval", 1, "a b"),)))))
    header, arrays = decode(widget.payload)
    assert (header["view"], header["empty"]) == ("shadow_router", None)
    assert arrays
    widget.update(trace_of())
    assert decode(widget.payload)[0]["empty"].startswith("No shadow")
