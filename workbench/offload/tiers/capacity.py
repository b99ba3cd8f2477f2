"""How many experts a budget holds, and what is said where it holds too few."""

from workbench.core.units import human_bytes

__all__ = ["device_capacity", "host_capacity"]


def device_capacity(budget: int, page_bytes: int, *, overhead: int, least: int, most: int, unit: str) -> int:
    """Pages that fit into the budget of the fast tier.

    Args:
        budget: what is left of it for experts [B].
        page_bytes: of a page [B].
        overhead: of the budget, for buffers [B].
        least: pages that one token asks for in a layer.
        most: pages of the model.
        unit: what pages are called.

    Raises:
        ValueError: fewer than the least fit; the message states the budget that does.
    """
    capacity = min((budget - overhead) // page_bytes, most)
    if capacity < least:
        needed = least * page_bytes + overhead
        raise ValueError(
            f"one token asks for {least} {unit} of {human_bytes(page_bytes)} in a layer, so the budget must be at "
            f"least {human_bytes(needed)} ({needed} B) beside what else it is for, got {human_bytes(max(budget, 0))} "
            f"({max(budget, 0)} B)"
        )
    return capacity


def host_capacity(budget: int, page_bytes: int, *, overhead: int, most: int, unit: str) -> int:
    """Pages that the host tier holds: one less than fit, because one slot is always spare.

    Args:
        budget: of the host tier [B].

    Raises:
        ValueError: none fits; the message states the budget that does.
    """
    capacity = min((budget - overhead) // page_bytes - 1, most)
    if capacity < 1:
        needed = 2 * page_bytes + overhead
        raise ValueError(
            f"a host tier holds at least one of the {unit} of {human_bytes(page_bytes)} and a spare slot, so the host "
            f"budget must be at least {human_bytes(needed)} ({needed} B), got {human_bytes(budget)} ({budget} B)"
        )
    return capacity
