import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from workbench.core import Spec
from workbench.model.pieces import Piece, fill, state_of, view_of, whole_pieces
from workbench.model.tensor_files import TensorFiles, write_tensors
from workbench.model.transformer import Transformer


@pytest.fixture
def stored(make_model, tmp_path):
    """A model, and a folder with its tensors under their own names."""
    model = make_model()
    write_tensors(tmp_path / "model.safetensors", state_of(model))
    return model, tmp_path


def filled(model, folder, **options) -> Transformer:
    fresh = Transformer(model.config)
    with TensorFiles(folder) as files:
        return fill(fresh, files, whole_pieces(fresh), **{"dtype": None, "device": "cpu", **options})


def rewrite(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_every_tensor_comes_back_bit_for_bit(stored):
    model, folder = stored
    again = filled(model, folder)
    assert all(torch.equal(a, b) for a, b in zip(state_of(model).values(), state_of(again).values(), strict=True))
    assert all(p.requires_grad for p in again.parameters())


def test_a_piece_is_a_view_of_the_model(make_model):
    state = state_of(make_model())
    view = view_of(state, Piece("x", "blocks.0.feed_forward.experts.gate_up", (2, slice(None, 24))))
    view.fill_(7.0)
    assert (state["blocks.0.feed_forward.experts.gate_up"][2, :24] == 7).all()


def test_a_tensor_with_two_names_is_kept_once(make_model):
    model = make_model()
    model.shared_part = nn.Linear(2, 2)
    next(model.moe_layers()).router.shared = model.shared_part
    assert len([name for name in state_of(model) if "shared" in name]) == 2  # weight and bias, not four


def test_dtypes_are_kept_tensor_by_tensor_unless_one_is_asked_for(stored):
    model, folder = stored
    gate = "blocks.0.feed_forward.router.gate.weight"
    rewrite(folder, lambda tensors: tensors.update({n: t.bfloat16() for n, t in tensors.items() if n != gate}))
    kept = dict(filled(model, folder).named_parameters())
    assert {name for name, p in kept.items() if p.dtype == torch.float32} == {gate}
    assert all(p.dtype == torch.bfloat16 for name, p in kept.items() if name != gate)
    for dtype in ("float64", torch.float64):
        assert {p.dtype for p in filled(model, folder, dtype=dtype).parameters()} == {torch.float64}


def test_buffers_of_a_router_keep_their_precision(make_model, tmp_path):
    model = make_model(router=Spec("top_k", {"selection_bias": True}))
    bias = "blocks.1.feed_forward.router.selection_bias"
    state_of(model)[bias].copy_(torch.linspace(-1, 1, 6))
    write_tensors(tmp_path / "model.safetensors", state_of(model))
    again = state_of(filled(model, tmp_path, dtype="bfloat16"))
    assert torch.equal(again[bias], torch.linspace(-1, 1, 6))


def test_missing_tensors_are_named(stored):
    model, folder = stored
    rewrite(folder, lambda tensors: tensors.pop("norm.weight"))
    with pytest.raises(ValueError, match=r"lacks 1 tensor \(norm.weight\), which the configuration beside it asks for"):
        filled(model, folder)
    rewrite(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if "attention" in name])
    with pytest.raises(ValueError, match=r"lacks \d+ tensors \(blocks.0.attention.norm.weight, .* and \d+ more\)"):
        filled(model, folder)


def test_tensors_without_a_place_are_named(stored):
    model, folder = stored
    rewrite(folder, lambda tensors: tensors.update(extra=torch.zeros(3)))
    with pytest.raises(ValueError, match=r"holds 1 tensor \(extra\), which this model has no place for"):
        filled(model, folder)
    assert torch.equal(filled(model, folder, ignored={"extra"}).norm.weight, model.norm.weight)


def test_a_misshapen_tensor_is_named_with_both_shapes(stored):
    model, folder = stored
    rewrite(folder, lambda tensors: tensors.update({"embedding.weight": torch.zeros(97, 30)}))
    with pytest.raises(ValueError, match=r"embedding.weight in .* must have shape \(97, 32\), got \(97, 30\)"):
        filled(model, folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float23"}, "dtype must be one of float32, bfloat16, float16, float64; got 'float23'"),
        ({"dtype": torch.int8}, "dtype must be one of float32, bfloat16, float16, float64; got 'int8'"),
        ({"device": "gpu"}, "device must be cpu or cuda, got 'gpu'"),
    ],
)
def test_a_wrong_dtype_or_device_is_refused(stored, options, message):
    model, folder = stored
    with pytest.raises(ValueError, match=message):
        filled(model, folder, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the message is for machines without a GPU")
def test_a_missing_gpu_is_told(stored):
    with pytest.raises(ValueError, match="device 'cuda' needs a CUDA GPU that torch can use, and there is none"):
        filled(*stored, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_model_is_filled_on_the_gpu(stored):
    model, folder = stored
    again = filled(model, folder, device="cuda")
    assert {t.device.type for t in again.state_dict().values()} == {"cuda"}
    assert next(again.moe_layers()).experts.ids.device.type == "cuda"
    assert all(torch.equal(a, b.cpu()) for a, b in zip(model.parameters(), again.parameters(), strict=True))
