"""Greedy decoding at `small`, batch 1, beside transformers' `generate` on an OLMoE of the same shape.

Both continue the same 32 tokens by 64 with a KV cache in float32 on the CPU, in turn; the peer's experts run as
`grouped_mm` and as `batched_mm`, of which the better counts.
"""

import statistics
import time

import pytest
import torch
import transformers
from transformers import OlmoeConfig, OlmoeForCausalLM

from workbench.model.config import preset
from workbench.model.generate import Sampling, generate
from workbench.model.transformer import Transformer, initialise

PROMPT, NEW, ROUNDS = 32, 64, 7


def ours(prompt):
    model = initialise(Transformer(preset("small")), 0).eval()
    sampling = Sampling(max_new_tokens=NEW, temperature=0.0)
    return lambda: sum(1 for _ in generate(model, [prompt.tolist()], sampling))


def theirs(prompt, implementation):
    shape = preset("small")
    config = OlmoeConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.width,
        intermediate_size=shape.expert_width,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        num_experts=shape.num_experts,
        num_experts_per_tok=2,
        tie_word_embeddings=True,
        experts_implementation=implementation,
    )
    # no token ends the text early: both must decode as many.
    config.eos_token_id = config.pad_token_id = config.bos_token_id = None
    torch.manual_seed(0)
    model = OlmoeForCausalLM(config).eval()
    ids, mask = prompt.unsqueeze(0), torch.ones(1, PROMPT, dtype=torch.int64)
    settings = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    return lambda: model.generate(ids, attention_mask=mask, **settings)


@pytest.mark.filterwarnings("ignore")
def bench_decoding_against_transformers():
    prompt = torch.randint(0, 4096, (PROMPT,), generator=torch.Generator().manual_seed(0))
    contenders = {"workbench": ours(prompt)}
    contenders |= {f"transformers {name}": theirs(prompt, name) for name in ("grouped_mm", "batched_mm")}
    taken = {name: [] for name in contenders}
    for round_ in range(ROUNDS + 1):
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            if round_:
                taken[name].append(time.perf_counter() - began)
    print(
        f"\nsmall, batch 1, {PROMPT} tokens continued by {NEW}, greedy, float32, cpu, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{ROUNDS} rounds in turn"
    )
    for name, times in taken.items():
        print(f"{name:28}{NEW / statistics.median(times):9.0f} tokens/s median{NEW / min(times):9.0f} best")
    peer = min(min(times) for name, times in taken.items() if name != "workbench")
    median = min(statistics.median(times) for name, times in taken.items() if name != "workbench")
    own = taken["workbench"]
    print(f"ratio of medians {median / statistics.median(own):.2f}, of minima {peer / min(own):.2f} (goal: at least 3)")
