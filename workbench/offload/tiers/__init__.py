"""Where experts lie (device, host, disk), and what brings them from one to the next."""

from workbench.core.lazy import lazy_exports

__all__ = [
    "DEVICE",
    "DISK",
    "HOST",
    "DiskLink",
    "HostMemory",
    "HostTier",
    "Link",
    "LinkCost",
    "Move",
    "Mover",
    "SlotPool",
    "Source",
    "TieredLink",
    "Traffic",
    "buffer_bytes",
    "device_capacity",
    "host_capacity",
    "measure_link",
    "open_link",
    "tiers_of",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "DEVICE": "workbench.offload.tiers.layout",
        "DISK": "workbench.offload.tiers.layout",
        "DiskLink": "workbench.offload.tiers.disk_link",
        "HOST": "workbench.offload.tiers.layout",
        "HostMemory": "workbench.offload.tiers.pinned",
        "HostTier": "workbench.offload.tiers.host_tier",
        "Link": "workbench.offload.tiers.link",
        "LinkCost": "workbench.offload.tiers.cost",
        "Move": "workbench.offload.tiers.mover",
        "Mover": "workbench.offload.tiers.mover",
        "SlotPool": "workbench.offload.tiers.pool",
        "Source": "workbench.offload.tiers.host_tier",
        "TieredLink": "workbench.offload.tiers.tiered_link",
        "Traffic": "workbench.offload.tiers.link",
        "buffer_bytes": "workbench.offload.tiers.layout",
        "device_capacity": "workbench.offload.tiers.capacity",
        "host_capacity": "workbench.offload.tiers.capacity",
        "measure_link": "workbench.offload.tiers.cost",
        "open_link": "workbench.offload.tiers.layout",
        "tiers_of": "workbench.offload.tiers.layout",
    },
)
