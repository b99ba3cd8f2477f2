"""Whether this is a notebook."""

import sys
from importlib import import_module

__all__ = ["in_notebook"]


def in_notebook() -> bool:
    """True in the kernel of a notebook, whether anybody looks at it or not."""
    if "IPython" not in sys.modules:
        return False
    shell = import_module("IPython").get_ipython()
    return shell is not None and "kernel" in shell.trait_names()
