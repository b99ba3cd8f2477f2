"""Where the data that ships with the package is."""

from pathlib import Path

__all__ = ["bundled"]

_PACKAGE = Path(__file__).resolve().parents[1]
# A wheel carries the data inside the package; a checkout has it beside the package.
_ROOTS = (_PACKAGE / "_datasets", _PACKAGE.parent / "datasets")


def bundled(relative: str) -> Path:
    """Path of a bundled file or folder, for instance `corpora/mixed`.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    for root in _ROOTS:
        if (root / relative).exists():
            return root / relative
    raise FileNotFoundError(
        f"expected {relative} in {' or '.join(str(root) for root in _ROOTS)}, found neither; "
        "reinstall moe-workbench, or restore datasets/ in the checkout"
    )
