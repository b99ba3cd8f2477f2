"""A transformers MoE model as host: one pass at a time, its routing heard or forced."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.core.records import Output, Site
from workbench.core.sparse import SparseRouting
from workbench.model.host.layers import HostLayer, find_layers
from workbench.model.host.loading import empty_model, host_config, load_around_experts, load_whole
from workbench.model.host.scores import probability, score_of
from workbench.model.host.seam import Decision, ExpertsPlug, Seam

__all__ = ["HostModel", "HostPass"]

_PROBED_TOKENS = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class HostPass:
    """What one pass of a host gave.

    Args:
        output: logits, and the routing of every MoE layer and real token.
        cache: what the next pass continues from.
    """

    output: Output
    cache: Any = field(repr=False)


@final
class HostModel:
    """A checkpoint of any family whose experts run through transformers' experts interface.

    Tried: Mixtral, OLMoE, FlexOlmo, Qwen2-MoE, Qwen3-MoE, DeepSeek-V2, DeepSeek-V3, GPT-OSS, GLM-4-MoE, PhiMoE,
    Ernie 4.5, Dots1, GraniteMoE, MiniMax; in float32 and bfloat16, not quantised. It computes without gradients.
    `HostModel.open` makes one. Two hosts share nothing, and two threads may run one.

    Args:
        model: of transformers, built with the seam's name as experts implementation.
        seam: where its experts are called.

    Attributes:
        layers: its MoE layers; dense ones are not counted.
        model: transformers' own object.
    """

    def __init__(self, model: Any, seam: Seam):
        self.model = model
        self._seam = seam
        layers = find_layers(model)
        seam.attach(model, layers)
        self.layers: tuple[HostLayer, ...] = layers
        self.layers = tuple(_known(layer, decision) for layer, decision in zip(layers, self._probe(), strict=True))

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        implementation: str = "eager",
        with_experts: bool = True,
    ) -> "HostModel":
        """The model in a folder.

        Args:
            path: a Hugging Face folder with safetensors.
            dtype: of the parameters; None keeps that of the checkpoint.
            implementation: who computes the experts: `eager`, or a name that transformers knows, such as
                `grouped_mm`.
            with_experts: False leaves the experts on disk: all else is read tensor by tensor, the experts' files
                are not touched, and the model runs once experts are plugged in.

        Raises:
            FileNotFoundError: no such folder, no configuration or no weights in it.
            ModuleNotFoundError: transformers is not installed.
            ValueError: a family whose experts do not go through the interface, quantised weights, damaged files,
                or tensors that do not fit.
        """
        folder, config = host_config(path)
        seam = Seam(implementation)
        bare = empty_model(config, dtype=dtype, implementation=seam.name)
        find_layers(bare)
        if with_experts:
            model = load_whole(folder, config, dtype=dtype, implementation=seam.name).to(device)
        else:
            load_around_experts(folder, bare, device)
            model = bare
        return cls(model, seam)

    @property
    def family(self) -> str:
        """Name of the architecture, as in `config.json`."""
        return str(self.model.config.model_type)

    @property
    def vocab_size(self) -> int:
        """Tokens that the model knows."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def max_positions(self) -> int:
        """Tokens that the model was made to see at once."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where the model runs, its experts left aside."""
        place: torch.device = self.model.get_input_embeddings().weight.device
        return place

    def plug_experts(self, plug: ExpertsPlug | None) -> None:
        """Let someone else compute the experts of all layers from the next pass on; None gives them back."""
        self._seam.plug = plug

    @torch.no_grad()
    def forward(
        self,
        token_ids: Int[Tensor, "B S"],
        *,
        mask: Bool[Tensor, "B P"] | None = None,
        cache: Any = None,
        forced: Mapping[int, Decision] | None = None,
        last_only: bool = False,
    ) -> HostPass:
        """One pass over new tokens.

        Args:
            mask: True for real tokens, over those in the cache and the new ones; by default all are.
            cache: of the pass before; None begins new sequences.
            forced: what the experts get instead of the router's decision, by MoE layer and for every token,
                padding included.
            last_only: logits of the last column only, which spares much memory on long prompts.

        Raises:
            ValueError: a layer that runs twice, experts beyond the model's own, or a forced decision that does not
                fit.
        """
        new = token_ids.shape[1]
        options: dict[str, Any] = {"logits_to_keep": 1} if last_only else {}
        if mask is not None:
            place = (mask.cumsum(-1) - 1).clamp_min(0)[:, -new:]
            options |= {"attention_mask": mask.long(), "position_ids": place}
        with self._seam.listening(forced) as heard:
            out = self.model(token_ids, past_key_values=cache, use_cache=True, **options)
        real = None if mask is None or bool(mask[:, -new:].all()) else mask[:, -new:].flatten()
        logits = out.logits
        if real is not None and not last_only:
            logits = logits.masked_fill(~real.view(*token_ids.shape, 1), 0)
        sites = tuple(self._site(layer, _heard(heard, layer), token_ids.numel(), real) for layer in self.layers)
        return HostPass(output=Output(logits=logits, sites=sites), cache=out.past_key_values)

    def _site(self, layer: HostLayer, decision: Decision, rows: int, real: Tensor | None) -> Site:
        expert, weight, logit = decision.expert.long(), decision.weight, decision.logit
        if expert.shape[0] != rows or int(expert.max()) >= layer.num_experts:
            raise ValueError(
                f"expected one routing for each of {rows} tokens among {layer.num_experts} experts in "
                f"{layer.name}, got {expert.shape[0]} with expert {int(expert.max())}; "
                f"{self.family} routes in a way that cannot be recorded"
            )
        if real is not None:
            expert, weight, logit = expert[real], weight[real], None if logit is None else logit[real]
        prob = probability(logit, layer.score) if logit is not None and layer.score is not None else None
        routing = SparseRouting.from_topk(
            expert.contiguous(), weight, num_experts=layer.num_experts, prob=prob, logit=logit
        )
        return Site(layer=layer.index, iteration=0, module=layer.block, router=self.family, routing=routing)

    @torch.no_grad()
    def _probe(self) -> list[Decision]:
        """What the routers do with a few tokens, the experts adding nothing: their K, their score."""
        ids = torch.arange(_PROBED_TOKENS, device=self.device).remainder(self.vocab_size).unsqueeze(0)
        plug, self._seam.plug = self._seam.plug, _nothing
        try:
            with self._seam.listening() as heard:
                self.model(ids, use_cache=False)
        finally:
            self._seam.plug = plug
        return [_heard(heard, layer) for layer in self.layers]

    def __repr__(self) -> str:
        first = self.layers[0]
        held = "experts on disk" if any(p.is_meta for p in first.module.parameters()) else "experts in memory"
        plugged = ", plugged in" if self._seam.plug is not None else f", computed by {self._seam.implementation}"
        return (
            f"HostModel({self.family}: {len(self.layers)} MoE layers of {first.num_experts} experts, "
            f"{first.top_k} a token; {held}{plugged})"
        )


def _heard(heard: Mapping[int, Decision], layer: HostLayer) -> Decision:
    if layer.index not in heard:
        raise ValueError(
            f"{layer.name} was not called in this pass: the model's experts implementation was changed, or the layer "
            "is no part of the text model; open the folder again"
        )
    return heard[layer.index]


def _known(layer: HostLayer, decision: Decision) -> HostLayer:
    return replace(layer, top_k=decision.expert.shape[1], score=score_of(decision))


def _nothing(layer: int, hidden: Tensor, expert: Tensor, weight: Tensor, module: torch.nn.Module) -> Tensor:
    return torch.zeros_like(hidden)
