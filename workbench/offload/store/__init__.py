"""Experts on disk: converted once, in blocks that can be read past the page cache."""

from workbench.core.lazy import lazy_exports

__all__ = [
    "ALIGNMENT",
    "EXACT",
    "BlockShape",
    "DamagedExpert",
    "Encoding",
    "ExpertStore",
    "Part",
    "convert",
    "convert_model",
    "converted",
    "identity_of",
    "is_expert",
    "parts_of",
    "stamp_of",
    "stored_as",
    "write_store",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ALIGNMENT": "workbench.offload.store.blocks",
        "BlockShape": "workbench.offload.store.blocks",
        "DamagedExpert": "workbench.offload.store.expert_store",
        "EXACT": "workbench.offload.store.encoding",
        "Encoding": "workbench.offload.store.encoding",
        "ExpertStore": "workbench.offload.store.expert_store",
        "Part": "workbench.offload.store.blocks",
        "convert": "workbench.offload.store.convert",
        "convert_model": "workbench.offload.store.convert",
        "converted": "workbench.offload.store.convert",
        "identity_of": "workbench.offload.store.convert",
        "is_expert": "workbench.offload.store.convert",
        "parts_of": "workbench.offload.store.blocks",
        "stamp_of": "workbench.offload.store.convert",
        "stored_as": "workbench.offload.store.convert",
        "write_store": "workbench.offload.store.expert_store",
    },
)
