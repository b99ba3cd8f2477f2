"""The gallery shows every router over the same model, and leaves the model as it was."""

import pytest
import torch

from workbench.core import Spec
from workbench.core.router import Card
from workbench.core.sparse import SparseRouting
from workbench.model import ModelConfig
from workbench.routers import ROUTERS
from workbench.train.assemble import Request, start_training
from workbench.train.config import TrainConfig
from workbench.view.gallery import Exhibit, gallery

SHAPE = ModelConfig(
    vocab_size=257,
    width=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    num_experts=4,
    expert_width=16,
    router=Spec("top_k"),
)


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = TrainConfig(batch_size=2, sequence_length=16, dtype="float32", checkpoint_every=0)
    return start_training(Request(model=SHAPE, corpus="token_remap:num_domains=2,documents=1"), config)


def test_every_router_is_shown_once_and_the_model_is_as_before(trainer):
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    seen = []
    shown = gallery(trainer, "ab cd", steps=1, on_router=seen.append)
    assert [exhibit.name for exhibit in shown] == seen == list(ROUTERS.names())
    assert all(exhibit.routing.num_tokens == 5 for exhibit in shown)
    assert trainer.step == 0
    assert trainer.model.config.router.name == "top_k"
    after = trainer.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    page = shown._repr_html_()
    assert all(f">{name}</b>" in page for name in seen)
    assert {exhibit.name for exhibit in shown if exhibit.sees_future} >= {"expert_choice", "soft"}


def exhibit_of(expert, keep=None) -> Exhibit:
    expert = torch.tensor(expert)
    weight = torch.linspace(1, 0.5, expert.numel()).view(expert.shape)
    routing = SparseRouting.from_topk(expert, weight, num_experts=10, keep=keep)
    pieces = ["<b>", " a", "\n"][: len(expert)]
    return Exhibit(name="x", card=Card("A & B"), sees_future=False, loss=1.5, pieces=pieces, routing=routing)


def test_a_card_counts_experts_and_escapes_text():
    page = exhibit_of([[3, 1], [9, 0], [2, 5]]).html()
    assert "2.00 experts per token" in page
    assert "A &amp; B" in page
    assert "&lt;b&gt;<sub>3</sub><sup>+1</sup>" in page
    assert "·a<sub>9</sub>" in page
    assert "⏎<sub>2</sub>" in page


def test_a_token_without_expert_is_dashed():
    page = exhibit_of([[3], [1]], keep=torch.tensor([[True], [False]])).html()
    assert page.count("dashed") == 1
    assert "0.50 experts per token" in page


def test_what_cannot_be_shown_is_refused_before_anything_is_swapped(trainer):
    with pytest.raises(LookupError, match="did you mean 'switch'"):
        gallery(trainer, "ab", routers=["top_k", "swich"])
    with pytest.raises(ValueError, match="at least one token"):
        gallery(trainer, "")
    with pytest.raises(ValueError, match="layer must be between 0 and 1, got 2"):
        gallery(trainer, "ab", layer=2)
    assert trainer.state.events == ()
