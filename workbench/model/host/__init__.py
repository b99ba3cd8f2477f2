"""Any open MoE checkpoint of transformers as host: its routing recorded or forced, its experts run by others.

`HostModel` opens a folder, `generate_host` writes with it, `record_host` makes a trace, `replay_host` forces one,
and `expert_pieces` says where each expert lies in the files.
"""

from workbench.core.lazy import lazy_exports

__all__ = [
    "ExpertPart",
    "ExpertsPlug",
    "HostLayer",
    "HostModel",
    "expert_pieces",
    "generate_host",
    "read_expert",
    "record_host",
    "replay_host",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "ExpertPart": "workbench.model.host.pieces",
        "ExpertsPlug": "workbench.model.host.seam",
        "HostLayer": "workbench.model.host.layers",
        "HostModel": "workbench.model.host.host_model",
        "expert_pieces": "workbench.model.host.pieces",
        "generate_host": "workbench.model.host.generation",
        "read_expert": "workbench.model.host.pieces",
        "record_host": "workbench.model.host.recording",
        "replay_host": "workbench.model.host.replaying",
    },
)
