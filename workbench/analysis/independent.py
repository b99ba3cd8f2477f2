"""The null model of locality: the same experts as often, asked for by sets that know nothing of each other."""

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64

__all__ = ["independent_sets"]

_CELLS = 1 << 22


def independent_sets(
    page: Int32[np.ndarray, "A"], start: Int64[np.ndarray, "sets_and_end"], group: Int[np.ndarray, "sets"], *, seed: int
) -> Int32[np.ndarray, "A"]:
    """Pages of as many sets of the same sizes, each drawn independently of the others, ascending within a set.

    A page comes with the frequency that it has in the sets of the same group and size, exactly; which pages come
    together is left to chance.

    Args:
        page: of every request, each once in its set.
        start: first request of every set, and the end of the last.
        group: of every set: sets of one group share their frequencies, as those of a layer.
        seed: of the draws.

    Source: randomised systematic sampling, Hartley and Rao (1962).
    """
    generator = np.random.default_rng(seed)
    size = np.diff(start)
    drawn = np.empty_like(page)
    classes, own = np.unique(np.stack([group, size]), axis=1, return_inverse=True)
    for number in range(classes.shape[1]):
        width = int(classes[1, number])
        sets = np.flatnonzero(own.ravel() == number)
        if not width:
            continue
        at = start[sets][:, None] + np.arange(width)
        pages, counts = np.unique(page[at], return_counts=True)
        rows = max(1, _CELLS // len(pages))
        for low in range(0, len(sets), rows):
            part = at[low : low + rows]
            chosen = _draw(generator, counts, len(sets), len(part))
            drawn[part] = pages[np.nonzero(chosen)[1]].reshape(part.shape)
    return drawn


def _draw(
    generator: np.random.Generator, counts: Int[np.ndarray, "pages"], sets: int, rows: int
) -> Bool[np.ndarray, "rows pages"]:
    """Rows of as many pages each, page `p` in a share `counts[p] / sets` of them."""
    order = generator.random((rows, len(counts))).argsort(-1)
    # in whole numbers: a page whose share is 1 is in every row, and no row gets a page too many by rounding.
    ends = generator.integers(0, sets, (rows, 1)) + counts[order].cumsum(-1)
    begins = ends - counts[order]
    chosen = np.empty(order.shape, np.bool_)
    np.put_along_axis(chosen, order, ends // sets > begins // sets, -1)
    return chosen
