"""Does it learn? A small model on a task whose best possible loss is known."""

import pytest

from workbench.train.assemble import Request, start_training

# Symbols are spread evenly over 64, so a model that ignores the context pays this [bit/byte].
WITHOUT_CONTEXT = 6.0


@pytest.mark.parametrize("router", ["top_k", "switch"])
def test_a_hundred_steps_learn_the_rules_of_token_remap(router, shape, make_config):
    config = make_config(batch_size=16, sequence_length=32, learning_rate=1e-2, warmup_steps=10, evaluation_windows=16)
    request = Request(model=shape, corpus="token_remap:num_domains=2,documents=200", router=router)
    trainer = start_training(request, config)
    for _ in trainer.run(100):
        pass
    found = trainer.evaluate()
    assert trainer.batches.corpus.entropy_bits < 2 < min(found.values())
    assert max(found.values()) < WITHOUT_CONTEXT - 1.5
