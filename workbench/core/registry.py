"""A registry is a package: its files are its entries, the file name is the public name."""

import pkgutil
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from workbench.core.check import did_you_mean

__all__ = ["Registry"]


class Registry:
    """Names of the files of a package, and the one class that each defines.

    Listing names imports nothing. A distribution outside this one adds an entry through an entry
    point in the group that is called like the package; a notebook adds one for its own process with `add`.

    Args:
        package: dotted name of the package.
        base: class every entry derives from, or `"module:Class"` to import it late.
    """

    def __init__(self, package: str, base: type | str):
        self.package = package
        self._base = base
        self._added: dict[str, type] = {}

    def names(self) -> tuple[str, ...]:
        """Every public name, sorted."""
        return tuple(sorted({*self._files(), *self._outside(), *self._added}))

    def add(self, name: str) -> Callable[[type], type]:
        """Enter a class under a name, for this process only; a decorator. Entering it again replaces it.

        Raises:
            ValueError: a name that is no identifier or belongs to a file or an installed distribution.
            TypeError: a class that does not derive from the base of this registry.
        """
        taken = name in self._files() or name in self._outside()
        if taken or not name.isidentifier():
            raise ValueError(
                f"a new entry of {self.package} needs a name of its own, made of letters, digits and _; got {name!r}"
                + (", which exists already" if taken else "")
            )

        def enter(cls: type) -> type:
            if not issubclass(cls, self._base_class()):
                raise TypeError(
                    f"{cls.__name__} must derive from {self._base_class().__name__} to be in {self.package}"
                )
            self._added[name] = cls
            return cls

        return enter

    def get(self, name: str) -> Any:
        """The class behind a name.

        Raises:
            LookupError: no such name; the message lists those that exist.
        """
        # files first: asking every installed distribution for its entry points takes tens of milliseconds.
        if name in self._added:
            return self._added[name]
        if name in self._files():
            return self._only_class(f"{self.package}.{name}")
        outside = self._outside()
        if name in outside:
            return outside[name].load()
        raise LookupError(
            f"{self.package} has no {name!r}{did_you_mean(name, self.names())}. Known names: {', '.join(self.names())}."
        )

    def name_of(self, cls: type) -> str:
        """The public name of a registered class.

        Raises:
            LookupError: the class is not an entry.
        """
        for added, entered in self._added.items():
            if entered is cls:
                return added
        prefix, _, name = cls.__module__.rpartition(".")
        if prefix == self.package and name in self._files():
            return name
        for outside, entry in self._outside().items():
            if entry.value == f"{cls.__module__}:{cls.__qualname__}":
                return outside
        raise LookupError(f"{cls.__name__} is not an entry of {self.package}; give it a file there or an entry point")

    def _files(self) -> list[str]:
        path = import_module(self.package).__path__
        return [m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_") and not m.ispkg]

    def _outside(self) -> dict[str, Any]:
        return {entry.name: entry for entry in entry_points(group=self.package)}

    def _only_class(self, module_name: str) -> type:
        module, base = import_module(module_name), self._base_class()
        found = [
            value
            for key, value in vars(module).items()
            if isinstance(value, type)
            and issubclass(value, base)
            and value.__module__ == module_name
            and not key.startswith("_")
        ]
        if len(found) != 1:
            raise LookupError(f"{module_name} must define one public {base.__name__}, found {len(found)}")
        return found[0]

    def _base_class(self) -> type:
        if isinstance(self._base, str):
            module, _, name = self._base.partition(":")
            self._base = vars(import_module(module))[name]
        assert isinstance(self._base, type)
        return self._base
