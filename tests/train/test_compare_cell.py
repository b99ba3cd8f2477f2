"""A cell is kept under what it depends on, and its numbers are those of the model in it."""

import json
from dataclasses import replace

import pytest
import torch

from workbench.core import RouteContext, Spec
from workbench.model.weights import load
from workbench.train.assemble import resume_training
from workbench.train.compare_cell import Cell, run_cell
from workbench.train.evaluate import evaluate_domains
from workbench.train.precision import FULL_PRECISION

MODEL = "tiny:num_layers=2,width=32,num_heads=2,num_kv_heads=1,head_dim=16,num_experts=4,expert_width=16"


@pytest.fixture
def cell(make_config, corpus) -> Cell:
    config = make_config(num_steps=3)
    return Cell(router=Spec("adamoe"), model=MODEL, corpus=corpus, config=config)


def test_the_key_follows_what_the_result_depends_on(cell):
    changed = [
        replace(cell, router=Spec("adamoe", {"balance": 0.5})),
        replace(cell, model=MODEL.replace("width=32", "width=48")),
        replace(cell, config=replace(cell.config, seed=7)),
        replace(cell, corpus="token_remap:num_domains=2,documents=2"),
    ]
    assert cell.key() == replace(cell).key()
    assert len({cell.key(), *(other.key() for other in changed)}) == 5


def test_the_numbers_are_those_of_the_trained_model(cell, tmp_path):
    result = run_cell(cell, tmp_path)
    run = cell.folder(tmp_path) / "run"
    trainer = resume_training(run)
    bits = evaluate_domains(trainer.model, trainer.batches, trainer.config.evaluation_windows, FULL_PRECISION)
    assert result["bits_per_byte"] == pytest.approx(bits)
    rows = tokens = 0
    for domain in trainer.batches.corpus.domains:
        for batch in trainer.batches.evaluation(domain, max_windows=trainer.config.evaluation_windows):
            with torch.no_grad():
                output = trainer.model(batch.token_ids, mask=batch.mask, context=RouteContext(phase="prefill"))
            for site in output.sites:
                own = site.routing.assignments()
                rows += int(((own.expert < 4) & own.kept).sum())
                tokens += site.routing.num_tokens
    trainer.release()
    assert result["active_experts"] == pytest.approx(rows / tokens)
    # null experts take some of a token's choices, so fewer than top_k of the model's own are left.
    assert 0 < result["active_experts"] < 3
    assert result["parameters"] == load(run).num_parameters()
    assert result["tokens"] == 3 * 4 * 16


def test_steps_are_told_and_a_finished_cell_tells_the_last_one(cell, tmp_path):
    steps = []
    first = run_cell(cell, tmp_path, steps.append)
    assert steps == [0, 1, 2, 3]
    again = run_cell(cell, tmp_path, steps.append)
    assert steps[4:] == [3]
    # as text: a measure that is not known is NaN, which equals nothing.
    assert json.dumps(again, sort_keys=True) == json.dumps(first, sort_keys=True)
