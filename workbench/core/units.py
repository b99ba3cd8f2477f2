"""Numbers with units, as people read them."""

__all__ = ["human_bytes", "human_count", "human_seconds"]


def human_bytes(count: float) -> str:
    """A byte count [B] as text, for instance `26.2 MiB`."""
    if abs(count) < 1023.5:
        return f"{count:.0f} B"
    return _scaled(count, 1024, ("KiB", "MiB", "GiB", "TiB"))


def human_count(count: float) -> str:
    """A plain count as text, for instance `26.3 M`."""
    return f"{count:.0f}" if abs(count) < 999.5 else _scaled(count, 1000, ("k", "M", "G"))


def human_seconds(seconds: float) -> str:
    """A duration [s] as text, for instance `2 min 05 s`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _scaled(count: float, base: int, units: tuple[str, ...]) -> str:
    # the next unit begins where this one would be rounded up to a whole of the next.
    for unit in units[:-1]:
        count /= base
        if abs(count) < base - 0.05:
            return f"{count:.1f} {unit}"
    return f"{count / base:.1f} {units[-1]}"
