"""The traces made by hand follow the schema, so that what they prove holds for recorded ones."""

from workbench.trace import validate


def test_the_whole_trace_is_valid(samples):
    assert [str(problem) for problem in validate(samples.whole_trace())] == []
