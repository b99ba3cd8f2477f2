"""Stored names to the model's own, by transformers' table."""

from workbench.model.host.sources import sources_of

EXPERTS = "model.layers.0.mlp.experts"


def stored(of: str, count: int = 12) -> list[str]:
    # in the order of text, as files list them: 0, 1, 10, 11, 2, ...
    return sorted(f"{EXPERTS}.{number}.{of}.weight" for number in range(count))


def test_experts_come_in_the_order_of_their_numbers(plain):
    names = [*stored("gate_proj"), *stored("up_proj"), *stored("down_proj"), "lm_head.weight"]
    sources = sources_of(plain("qwen3_moe"), names)
    joined = sources.of[f"{EXPERTS}.gate_up_proj"]
    assert [names[-1] for names in joined.names.values()] == [f"{EXPERTS}.11.{p}_proj.weight" for p in ("gate", "up")]
    assert joined.all_names[:3] == tuple(f"{EXPERTS}.{n}.gate_proj.weight" for n in range(3))
    assert sources.of["lm_head.weight"].converter is None
    assert sources.unused == ()


def test_old_names_are_found(plain):
    old = "model.layers.0.block_sparse_moe.experts.0"
    sources = sources_of(plain("mixtral"), [f"{old}.w1.weight", f"{old}.w3.weight", "model.layers.0.strange"])
    assert sources.of[f"{EXPERTS}.gate_up_proj"].all_names == (f"{old}.w1.weight", f"{old}.w3.weight")
    assert sources.unused == ("model.layers.0.strange",)


def test_experts_already_stacked_are_taken_as_they_are(plain):
    source = sources_of(plain("olmoe"), [f"{EXPERTS}.gate_up_proj"]).of[f"{EXPERTS}.gate_up_proj"]
    assert (source.converter, source.all_names) == (None, (f"{EXPERTS}.gate_up_proj",))
