"""One file per corpus; the file name is its public name."""

__all__: list[str] = []
