"""Routers: one file per paper, the file name is the public name."""

from workbench.core.registry import Registry

__all__ = ["ROUTERS"]

ROUTERS = Registry("workbench.routers", "workbench.core.router:Router")
