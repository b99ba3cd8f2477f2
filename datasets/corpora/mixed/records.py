"""What the collectors hand to the builder."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Raw"]


@dataclass(frozen=True, kw_only=True)
class Raw:
    """One file that may be used; its text is read only when it is wanted.

    Args:
        domain: label in the corpus.
        kind: what sort of file; each kind has its own share of a domain.
        package: distribution or Debian package that installed the file.
        version: its version.
        licence: SPDX expression, or Debian's short name.
        path: below the package's own root.
        load: reads the content.
    """

    domain: str
    kind: str
    package: str
    version: str
    licence: str
    path: str
    load: Callable[[], str]

    @property
    def order(self) -> str:
        """A place in a shuffled order that depends on the name alone."""
        return hashlib.sha256(f"{self.kind}\0{self.package}\0{self.path}".encode()).hexdigest()
