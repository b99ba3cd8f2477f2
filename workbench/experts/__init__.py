"""Kinds of expert: one file per kind, the file name is the public name."""

from workbench.core.registry import Registry

__all__ = ["EXPERTS"]

EXPERTS = Registry("workbench.experts", "workbench.core.experts:Experts")
