"""Formats of experts: one file per format, the file name is the public name."""

from workbench.core.registry import Registry

__all__ = ["FORMATS"]

FORMATS = Registry("workbench.offload.formats", "workbench.offload.expert_format:ExpertFormat")
