"""Traces made by hand, and a reader of payloads that shares no code with the package."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_spec = spec_from_file_location("view_tests_payloads", Path(__file__).parent.parent / "payloads" / "conftest.py")
_fixtures = module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)
decode, samples, trace_of = _fixtures.decode, _fixtures.samples, _fixtures.trace_of
