"""What experts multiply on a text, and stores that are written with it."""

import json

import pytest
import torch

from workbench.core import RouteContext, SparseRouting, Spec
from workbench.data.catalog import load_tokenizer
from workbench.experts.mlp import MLPExperts
from workbench.experts.residual import ResidualExperts
from workbench.model.transformer import Transformer
from workbench.model.weights import load
from workbench.offload.calibration import _Listening, calibrate, calibration_name, calibration_tokens
from workbench.offload.config import OffloadConfig
from workbench.offload.formats import FORMATS
from workbench.offload.model import offload_model, open_offloaded

TEXT = tuple((7 * place * place + 3 * place) % 67 for place in range(90))
SPEC = Spec("residual", {"levels": 3})


def drawn(body):
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    return body


@torch.no_grad()
def test_sizes_by_hand():
    body, generator = drawn(MLPExperts(3, 3, hidden=2)), torch.Generator().manual_seed(0)
    windows = [torch.randn(4, 3, generator=generator), torch.randn(2, 3, generator=generator)]
    # nobody asks for the last expert; the first is not asked for in the second window.
    chosen = [torch.tensor([[0], [1], [0], [1]]), torch.tensor([[1], [1]])]
    listening = _Listening(body)
    for x, expert in zip(windows, chosen, strict=True):
        listening(x, SparseRouting.from_topk(expert, torch.ones(expert.shape), num_experts=3), RouteContext())
        listening.end_window()
    assert listening.counts == [2, 4, 0]
    scales = listening.scales()

    def size(parts):
        norm = sum(part.norm(dim=0) for part in parts) / 2 + 1e-3
        return norm / (sum(len(part) ** 0.5 for part in parts) / 2)

    for expert in range(3):
        assert torch.allclose(scales[expert][0], size(windows))
    means = []
    for expert, tokens in ((0, 2), (1, 4)):
        rows = [x[which[:, 0] == expert] for x, which in zip(windows, chosen, strict=True)]
        own = size([body.inputs((body.gate_up[expert], body.down[expert]), part)[1] for part in rows])
        means.append(own.mean())
        # believed as far as it has seen tokens.
        assert torch.allclose(scales[expert][1], (tokens * own + 16 * own.mean()) / (tokens + 16), atol=1e-6)
    assert torch.allclose(scales[2][1], torch.stack(means).mean().expand(2))


def test_a_model_is_measured_as_it_is_and_stays_as_it_was(checkpoint):
    model = load(checkpoint()).eval()
    seen = []
    layer = next(model.moe_layers())
    heard = layer.norm.register_forward_hook(lambda module, args, out: seen.append(out.detach()))
    before = [model(torch.tensor([TEXT[first : first + 64]])).logits for first in (0, 64)]
    heard.remove()
    found, again = (calibrate(model, TEXT, window=64) for _ in range(2))
    norm = sum(part.norm(dim=0) for part in seen) / 2 + 1e-3
    assert torch.allclose(found.scales[3][0], norm / ((64**0.5 + 26**0.5) / 2), rtol=1e-4)
    assert len(found.scales) == len(found.tokens) == 16
    # two layers, two experts for every token.
    assert sum(found.tokens[:8]) == sum(found.tokens[8:]) == 2 * len(TEXT)
    assert found.name == again.name == calibration_name(TEXT) != calibration_name(TEXT[1:])
    for one, two in zip(found.scales, again.scales, strict=True):
        assert all(map(torch.equal, one, two)) and all(bool((scale > 0).all()) for scale in one)
    assert torch.equal(model(torch.tensor([TEXT[:64]])).logits, before[0])
    assert {type(layer.experts) for layer in model.moe_layers()} == {MLPExperts}


def test_experts_that_cannot_be_measured_are_refused():
    silent, x = _Listening(ResidualExperts(4, 2, hidden=3)), torch.ones(1, 4)
    plan = SparseRouting.from_topk(torch.tensor([[1]]), torch.ones(1, 1), num_experts=2)
    with pytest.raises(ValueError, match=r"each of their 6 tensors multiplies .*ResidualExperts does not; leave cal"):
        silent(x, plan, RouteContext())
    merged = SparseRouting.from_topk(torch.tensor([[0]]), torch.ones(1, 1), num_experts=1)
    with pytest.raises(ValueError, match=r"this router asks for 1 merged ones of 2; leave calibration out"):
        silent(x, merged, RouteContext())


def decoded(model: Transformer) -> Transformer:
    """The model with every expert as the format says it after calibration."""
    form, scales = SPEC.build(FORMATS), iter(calibrate(model, TEXT).scales)
    for layer in model.moe_layers():
        for expert in range(layer.experts.num_experts):
            tensors = [tensor.data[expert] for tensor in layer.experts.tensors()]
            form.decode(form.encode(tensors, next(scales)).pages, tensors)
    return model


def test_a_calibrated_model_computes_what_its_decoded_weights_do(checkpoint, opened, steps, assert_same, tmp_path):
    folder = checkpoint()
    offloaded = opened(folder, format=SPEC, calibration=TEXT, budget="50%", store=tmp_path / "store")
    got = steps(offloaded.model)
    assert_same(got, steps(decoded(load(folder).eval())))
    plain = opened(folder, format=SPEC, budget="50%", store=tmp_path / "plain")
    assert not torch.equal(got[0], steps(plain.model)[0])
    # bytes are the same.
    assert plain.engine.store.num_bytes == offloaded.engine.store.num_bytes
    assert f"{SPEC} calibrated on text {calibration_name(TEXT)} (" in offloaded._repr_html_()
    with offload_model(load(folder), OffloadConfig(format=SPEC, calibration=TEXT, budget="50%")) as in_memory:
        assert_same(steps(in_memory.model), got)


def test_another_text_is_another_store(copied, tmp_path):
    folder, told = copied(), []

    def conversions(calibration, store=None) -> int:
        told.clear()
        config = OffloadConfig(format=SPEC, calibration=calibration, budget="100%")
        open_offloaded(folder, config, store=store, on_expert=lambda done, total: told.append(done)).close()
        return len(told)

    assert [conversions(text) for text in (None, TEXT, TEXT, TEXT[:50], None, None)] == [16, 16, 0, 16, 16, 0]
    # and one without says nothing of it, as those before there was any.
    assert "calibration" not in json.loads((folder / "experts-residual" / "experts.json").read_text())["encoding"]
    assert conversions(TEXT, tmp_path / "mine") == 16 and conversions(TEXT, tmp_path / "mine") == 0
    for other in (None, TEXT[:50]):
        with pytest.raises(ValueError, match=r"mine holds the experts of .* calibrated on .*, expected .*; remove the"):
            conversions(other, tmp_path / "mine")


def test_a_text_is_read_with_the_tokenizer_of_the_model(copied, tmp_path):
    folder, text = copied(), tmp_path / "words.txt"
    text.write_text("Two plain words.", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"the calibration text .*words.txt needs the tokenizer .* none in .*copied; g"
    ):
        calibration_tokens(str(text), folder)
    with pytest.raises(ValueError, match="there is none with a model in memory; give its token ids instead"):
        calibration_tokens(str(text), None)
    tokenizer = load_tokenizer("byte")
    tokenizer.save(folder)
    assert calibration_tokens(str(text), folder) == tuple(tokenizer.encode("Two plain words."))
    text.write_bytes(b"no \xff text")
    with pytest.raises(ValueError, match=r"words.txt must be UTF-8 text; byte 3 is not: convert it first"):
        calibration_tokens(str(text), folder)
    assert calibration_tokens(None, folder) is None and calibration_tokens([5, 6], None) == (5, 6)
    with pytest.raises(ValueError, match="tokens of a calibration text must be at least 2, got 1"):
        calibration_tokens([5], None)
