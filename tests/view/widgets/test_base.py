"""What every widget does, with no front end at all."""

import pytest

from workbench.payloads import (
    expert_flow_payload,
    expert_load_payload,
    loss_curves_payload,
    offload_timeline_payload,
    residency_payload,
    shadow_router_payload,
    token_strip_payload,
)
from workbench.view.bundle import view_module, view_names
from workbench.view.widgets import (
    ExpertFlowWidget,
    ExpertLoadWidget,
    LossCurvesWidget,
    OffloadTimelineWidget,
    ResidencyWidget,
    ShadowRouterWidget,
    TokenStripWidget,
)
from workbench.view.widgets import _base as base

WIDGETS = {
    "expert_flow": ExpertFlowWidget,
    "expert_load": ExpertLoadWidget,
    "loss_curves": LossCurvesWidget,
    "offload_timeline": OffloadTimelineWidget,
    "residency": ResidencyWidget,
    "shadow_router": ShadowRouterWidget,
    "token_strip": TokenStripWidget,
}
PAYLOADS = {
    "expert_flow": expert_flow_payload,
    "expert_load": expert_load_payload,
    "loss_curves": loss_curves_payload,
    "offload_timeline": offload_timeline_payload,
    "residency": residency_payload,
    "shadow_router": shadow_router_payload,
    "token_strip": token_strip_payload,
}
# What they show is in no trace: they live in the widget of a run.
LIVE_ONLY = {"expert_effect", "generation", "router_swap", "run_table"}


class Clock:
    """A clock that moves when told to."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_every_view_of_a_trace_has_a_widget_of_its_name():
    assert {widget.view for widget in WIDGETS.values()} == set(view_names()) - LIVE_ONLY


@pytest.mark.parametrize("view", sorted(WIDGETS))
def test_a_widget_sends_its_view_and_the_payload_of_the_trace(view, samples):
    trace = samples.whole_trace()
    state = WIDGETS[view](trace).get_state()
    assert state["_esm"] == view_module(view)
    assert bytes(state["payload"]) == PAYLOADS[view](trace)
    assert state["selection"] == {}


def test_a_widget_takes_a_payload_as_it_is():
    assert LossCurvesWidget(b"MOEV...").payload == b"MOEV..."
    assert LossCurvesWidget().payload == b""


def test_update_replaces_what_is_shown(samples, trace_of):
    widget = LossCurvesWidget(trace_of(run=samples.run_group(steps=5)))
    before = widget.payload
    widget.update(trace_of(run=samples.run_group(steps=6)))
    assert widget.payload != before
    assert widget.payload == loss_curves_payload(trace_of(run=samples.run_group(steps=6)))


def test_refresh_asks_for_a_trace_only_when_one_is_due(samples, trace_of, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(base, "time", clock)
    calls = []

    def make_trace():
        calls.append(clock.now)
        return trace_of(run=samples.run_group(steps=4 + len(calls)))

    widget = LossCurvesWidget()
    answers = []
    for clock.now in (100.0, 100.2, 100.49, 100.5, 100.9, 101.0):
        answers.append(widget.refresh(make_trace, interval_seconds=0.5))
    assert answers == [True, False, False, True, False, True]
    assert calls == [100.0, 100.5, 101.0]


def test_a_slow_refresh_waits_fifty_times_as_long(samples, trace_of, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(base, "time", clock)

    def slow_trace():
        clock.now += 0.2
        return trace_of(run=samples.run_group(steps=4))

    widget = LossCurvesWidget()
    assert widget.refresh(slow_trace)
    clock.now += 9.9
    assert not widget.refresh(slow_trace)
    clock.now += 0.2
    assert widget.refresh(slow_trace)
