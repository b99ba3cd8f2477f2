"""A host gives what transformers gives, with its experts in memory, on disk, or computed by someone else."""

import gc
import threading
import weakref

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from workbench.model.host import HostModel


def reference(path, ids, dtype=torch.float32):
    """Logits of transformers' own loading and eager experts."""
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, experts_implementation="eager").eval()
        return model(ids, use_cache=False).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_logits_are_those_of_transformers_to_the_bit(family, dtype, folder, from_disk, token_ids):
    path = folder(family, dtype)
    expected = reference(path, token_ids, dtype)
    assert expected.float().std() > 0.3, "the comparison would say little"
    whole, bare = HostModel.open(path), HostModel.open(path, with_experts=False)
    bare.plug_experts(from_disk(path, dtype))
    assert torch.equal(whole.forward(token_ids).output.logits, expected)
    assert torch.equal(bare.forward(token_ids).output.logits, expected)


def test_another_dtype_is_the_one_that_transformers_would_load(folder, from_disk, token_ids):
    # deepseek keeps the bias of its router in float32 whatever the model's dtype is.
    path = folder("deepseek_v3")
    host = HostModel.open(path, dtype=torch.bfloat16, with_experts=False)
    host.plug_experts(from_disk(path, torch.bfloat16))
    biases = {name: b.dtype for name, b in host.model.named_buffers() if name.endswith("correction_bias")}
    assert set(biases.values()) == {torch.float32} and len(biases) == 2
    assert torch.equal(host.forward(token_ids).output.logits, reference(path, token_ids, torch.bfloat16))


def test_wrong_experts_would_show(folder, from_disk, token_ids):
    path = folder("olmoe")
    host, plug = HostModel.open(path, with_experts=False), from_disk(path)
    host.plug_experts(lambda layer, x, expert, weight, module: plug(layer, x, (expert + 1) % 12, weight, module))
    assert (host.forward(token_ids).output.logits - reference(path, token_ids)).abs().max() > 1e-2


def test_what_another_implementation_computes_agrees(folder, token_ids, assert_close):
    path = folder("qwen3_moe")
    host = HostModel.open(path, implementation="batched_mm")
    assert "computed by batched_mm" in repr(host)
    assert_close(host.forward(token_ids).output.logits, reference(path, token_ids))


def test_the_routing_is_what_the_router_gave(folder, token_ids, assert_close):
    path = folder("olmoe")
    host = HostModel.open(path)
    model = AutoModelForCausalLM.from_pretrained(path, experts_implementation="eager").eval()
    with torch.no_grad():
        logits = model(token_ids, output_router_logits=True).router_logits
    sites = host.forward(token_ids).output.sites
    assert [site.module for site in sites] == [f"model.layers.{n}.mlp" for n in range(3)]
    for site, logit in zip(sites, logits, strict=True):
        weight, expert = logit.float().softmax(-1).topk(3)
        assert torch.equal(site.routing.expert, expert)
        assert_close(site.routing.weight, weight)
        assert_close(site.routing.prob, logit.float().softmax(-1))
        assert (site.routing.num_experts, site.router) == (12, "olmoe")


def test_dense_layers_are_not_counted(folder, token_ids):
    host = HostModel.open(folder("deepseek_v3"))
    assert [(layer.index, layer.block) for layer in host.layers] == [
        (0, "model.layers.1.mlp"),
        (1, "model.layers.2.mlp"),
    ]
    assert [(layer.top_k, layer.score) for layer in host.layers] == [(3, "sigmoid")] * 2
    assert [site.layer for site in host.forward(token_ids).output.sites] == [0, 1]


def test_padding_has_no_routing_and_changes_nothing(folder, assert_close):
    host = HostModel.open(folder("gpt_oss"))
    long, short = list(range(3, 12)), [7, 30, 5, 44]
    ids = torch.tensor([long, [0] * 5 + short])
    mask = torch.tensor([[True] * 9, [False] * 5 + [True] * 4])
    both = host.forward(ids, mask=mask).output
    alone = host.forward(torch.tensor([short])).output
    assert_close(both.logits[1, 5:], alone.logits[0])
    assert not both.logits[1, :5].any()
    for site, own in zip(both.sites, alone.sites, strict=True):
        assert site.routing.num_tokens == 13
        assert torch.equal(site.routing.expert[9:], own.routing.expert)


def test_without_experts_and_without_a_plug_it_says_so(folder, token_ids):
    host = HostModel.open(folder("olmoe"), with_experts=False)
    assert "experts on disk" in repr(host)
    with pytest.raises(LookupError, match="left on disk and nobody computes them; plug experts in"):
        host.forward(token_ids)


def test_a_family_without_the_interface_is_refused(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=11, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"experts interface .*LlamaForCausalLM \(model_type 'llama'\) has no experts"):
        HostModel.open(tmp_path)


def test_two_hosts_share_nothing(folder, token_ids):
    one, other = HostModel.open(folder("olmoe")), HostModel.open(folder("olmoe"))
    expected = one.forward(token_ids).output.logits
    other.plug_experts(lambda layer, hidden, expert, weight, module: torch.zeros_like(hidden))
    assert torch.equal(one.forward(token_ids).output.logits, expected)
    assert not torch.equal(other.forward(token_ids).output.logits, expected)


def test_two_threads_of_one_host_hear_their_own_pass(folder):
    host = HostModel.open(folder("olmoe"))
    texts = [torch.tensor([[3 + n, 9, 27, 4 * n]]) for n in range(6)]
    expected = [[s.routing.expert for s in host.forward(text).output.sites] for text in texts]
    wrong, start = [], threading.Barrier(6)

    def run(text, own):
        start.wait()
        for _ in range(15):
            found = [site.routing.expert for site in host.forward(text).output.sites]
            wrong.extend(not torch.equal(a, b) for a, b in zip(found, own, strict=True))

    threads = [threading.Thread(target=run, args=pair) for pair in zip(texts, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 6 * 15 * 3 and not any(wrong)


def test_a_host_that_is_dropped_leaves_nothing_behind(folder):
    names = set(ALL_EXPERTS_FUNCTIONS)
    host = HostModel.open(folder("olmoe"))
    assert len(set(ALL_EXPERTS_FUNCTIONS) - names) == 1
    model = weakref.ref(host.model)
    del host
    gc.collect()
    assert model() is None
    assert set(ALL_EXPERTS_FUNCTIONS) == names


def test_a_copy_of_the_model_is_told_that_it_has_no_host(folder, token_ids):
    from copy import deepcopy

    host = HostModel.open(folder("olmoe"))
    with pytest.raises(LookupError, match="not of the model that this host opened"):
        deepcopy(host.model)(token_ids)
