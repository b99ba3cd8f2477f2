"""transformers' own models on these kernels: outputs and gradients as eager gives them, family by family."""

import subprocess
import sys

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations import moe
from workbench_kernels import huggingface, register_transformers

COMMON = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 24,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts": 6,
    "num_local_experts": 6,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "first_k_dense_replace": 0,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
FAMILIES = {
    "mixtral": {},
    "olmoe": {},
    "flex_olmo": {},
    "qwen2_moe": {"shared_expert_intermediate_size": 16},
    "qwen3_moe": {"head_dim": 8},
    "deepseek_v2": {**LATENT, "num_key_value_heads": 4},
    "deepseek_v3": {**LATENT, "num_key_value_heads": 4},
    "gpt_oss": {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "glm4_moe": {"head_dim": 8},
    "phimoe": {},
    "ernie4_5_moe": {"moe_num_experts": 6, "moe_k": 2},
    "dots1": {"head_dim": 8},
    "granitemoe": {},
    "minimax": {"layer_types": ["full_attention", "full_attention"], "head_dim": 8},
}


@pytest.fixture(scope="module", autouse=True)
def registered():
    register_transformers()
    yield
    del moe.ExpertsInterface._global_mapping["workbench"]


def model_of(family: str, dtype: torch.dtype = torch.float32, **options) -> nn.Module:
    torch.manual_seed(0)
    known = AutoConfig.for_model(family)
    fields = {name: value for name, value in COMMON.items() if name in known.to_dict() or name in vars(known)}
    config = AutoConfig.for_model(family, **(fields | FAMILIES[family]))
    # some routers add noise while they train.
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, **options).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            # the size of what trained models hold: at the usual start, experts would hardly show.
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model


def experts_of(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if type(module).__name__.endswith("Experts")]


TOKENS = torch.randint(3, 61, (2, 13), generator=torch.Generator().manual_seed(1))


def run(model: nn.Module, implementation: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits, and the gradient of every parameter."""
    model.set_experts_implementation(implementation)
    model.zero_grad()
    logits = model(TOKENS, use_cache=False).logits
    logits.float().log_softmax(-1)[..., 5].sum().backward()
    return logits, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_and_gradients_are_those_of_eager(family, distance):
    model = model_of(family)
    assert experts_of(model)
    (expected, gradients), (logits, found) = run(model, "eager"), run(model, "workbench")
    assert distance(logits, expected) < 1e-5
    assert found.keys() == gradients.keys()
    far = {name: distance(found[name], one) for name, one in gradients.items() if one.norm() > 1e-6}
    assert max(far.values()) < 1e-4, far


@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_the_layer_is_no_further_from_the_truth_than_eager(family, distance):
    layer = experts_of(model_of(family, torch.bfloat16))[0]
    generator = torch.Generator().manual_seed(2)
    expert = torch.rand(40, 6, generator=generator).topk(2).indices
    weight = torch.rand(40, 2, generator=generator)
    x = torch.randn(40, 32, generator=generator).bfloat16()
    far = {}
    exact = experts_of(model_of(family, torch.float32))[0]
    exact.load_state_dict(layer.state_dict())
    exact.config._experts_implementation = "eager"
    truth = exact.double()(x.double(), expert, weight.double())
    for implementation in ("eager", "workbench"):
        layer.config._experts_implementation = implementation
        out = layer(x, expert, weight)
        assert out.dtype == torch.bfloat16
        far[implementation] = distance(out, truth)
    assert far["workbench"] <= max(far["eager"], 3.5e-3)


@pytest.mark.parametrize("family", ["olmoe", "gpt_oss", "deepseek_v3"])
def test_the_same_text_is_generated(family):
    model = model_of(family).eval()
    texts = []
    for implementation in ("eager", "workbench"):
        model.set_experts_implementation(implementation)
        texts.append(model.generate(TOKENS, max_new_tokens=12, do_sample=False, eos_token_id=None))
    assert torch.equal(*texts)
    assert texts[0].shape == (2, 25)


def test_weights_are_saved_and_loaded_as_before(tmp_path):
    model = model_of("qwen3_moe", experts_implementation="workbench")
    model.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, experts_implementation="eager")
    again = AutoModelForCausalLM.from_pretrained(tmp_path, experts_implementation="workbench")
    assert plain.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), again.state_dict().values(), strict=True))
    torch.testing.assert_close(plain(TOKENS).logits, again(TOKENS).logits, rtol=1e-4, atol=1e-4)


def taken(monkeypatch, module, expert, weight=None) -> str:
    """Which way one call of a module goes."""
    ways = []
    for name in ("moe_mlp", "_by_steps"):
        real = getattr(huggingface, name)
        monkeypatch.setattr(huggingface, name, lambda *a, _r=real, _n=name, **k: ways.append(_n) or _r(*a, **k))
    module.config._experts_implementation = "workbench"
    module(torch.randn(len(expert), 32), expert, torch.rand(expert.shape))
    monkeypatch.undo()
    return ways[0]


def test_gated_experts_run_fused_and_others_by_steps(monkeypatch):
    expert = torch.tensor([[0, 1], [2, 5]])
    ways = {family: taken(monkeypatch, experts_of(model_of(family))[0], expert) for family in FAMILIES}
    assert [family for family, way in ways.items() if way == "_by_steps"] == ["gpt_oss"]


def test_an_unknown_activation_runs_by_steps(monkeypatch):
    module = experts_of(model_of("olmoe"))[0]
    assert taken(monkeypatch, module, torch.tensor([[0, 1]])) == "moe_mlp"
    module.act_fn = nn.Mish()
    assert taken(monkeypatch, module, torch.tensor([[0, 1]])) == "_by_steps"


@pytest.mark.parametrize(
    "kind",
    [
        {"has_gate": False},
        {"has_post_expert_norm": True},
        {"is_transposed": True},
        {"is_transposed": True, "has_bias": True},
        {"is_transposed": True, "has_bias": True, "has_gate": False, "has_post_expert_norm": True},
    ],
)
def test_every_kind_of_module_agrees_with_the_other_implementations(kind, distance):
    module, leaves = a_module(**kind)
    expert = torch.rand(15, 5, generator=torch.Generator().manual_seed(0)).topk(2).indices
    results = []
    for implementation in ("batched_mm", "workbench"):
        module.config._experts_implementation = implementation
        out = module(leaves[0], expert, leaves[1])
        results.append((out, *torch.autograd.grad(out.sin().sum(), (*leaves, *module.parameters()))))
    assert max(distance(a, b) for a, b in zip(*results, strict=True)) < 1e-5


def a_module(**kind):
    """A module of experts such as a model might have, and its inputs."""
    gate = 2 if kind.get("has_gate", True) else 1
    first = "gate_up_proj" if gate == 2 else "up_proj"

    class Experts(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.num_experts, self.act_fn = 5, nn.SiLU()
            shapes = {first: (5, gate * 7, 8), "down_proj": (5, 8, 7)}
            for name, shape in shapes.items():
                order = (shape[0], shape[2], shape[1]) if kind.get("is_transposed") else shape
                setattr(self, name, nn.Parameter(torch.randn(order)))
                if kind.get("has_bias"):
                    setattr(self, f"{name}_bias", nn.Parameter(torch.randn(shape[:2])))
            if kind.get("has_post_expert_norm"):
                self.post_expert_norm = nn.RMSNorm(8, eps=1e-6)

        def forward(self, hidden_states, top_k_index, top_k_weights):
            raise AssertionError("eager is not what is tested")

    class Config:
        _experts_implementation = "workbench"

    torch.manual_seed(0)
    module = moe.use_experts_implementation(**kind)(Experts)(Config())
    return module, (torch.randn(15, 8, requires_grad=True), torch.rand(15, 2, requires_grad=True))


@pytest.mark.parametrize("family", ["olmoe", "gpt_oss"])
def test_experts_of_another_process_are_skipped(family, distance):
    module = experts_of(model_of(family))[0]
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(9, 32, generator=generator), torch.rand(9, 2, generator=generator)
    expert = torch.rand(9, 6, generator=generator).topk(2).indices
    away = expert.masked_fill(expert == 1, 6)
    module.config._experts_implementation = "eager"
    expected = module(x, expert, weight.masked_fill(expert == 1, 0))
    module.config._experts_implementation = "workbench"
    assert distance(module(x, away, weight), expected) < 1e-6


def test_autocast_computes_in_its_dtype(distance):
    module = experts_of(model_of("olmoe"))[0]
    x, weight, expert = torch.randn(9, 32), torch.rand(9, 2), torch.rand(9, 6).topk(2).indices
    module.config._experts_implementation = "workbench"
    plain = module(x, expert, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = module(x, expert, weight)
    assert half.dtype == torch.float32
    assert 1e-4 < distance(half, plain) < 1e-2


COMPILED = """
import torch
from transformers import AutoModelForCausalLM, OlmoeConfig
from workbench_kernels import register_transformers

register_transformers()
torch.manual_seed(0)
config = OlmoeConfig(
    vocab_size=61, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, num_experts=6, num_experts_per_tok=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)
model = AutoModelForCausalLM.from_config(config, experts_implementation="workbench")
tokens = torch.randint(3, 61, (2, 13))
compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
results = []
for run in (model, compiled):
    model.zero_grad()
    logits = run(tokens, use_cache=False).logits
    logits.log_softmax(-1)[..., 5].sum().backward()
    results.append([logits, *(p.grad.clone() for p in model.parameters())])
for ours, theirs in zip(*results, strict=True):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
"""


@pytest.mark.slow
def test_a_model_compiles_as_one_graph():
    # a process of its own: the checks of shapes that the tests switch on cannot be traced.
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_without_transformers_it_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers.integrations.moe", None)
    with pytest.raises(ModuleNotFoundError, match="transformers"):
        register_transformers()
    assert transformers.__version__
