"""The routing of a host, as the trace that our own models give."""

from collections.abc import Sequence

from workbench.core.context import Phase
from workbench.core.records import Batch
from workbench.data.tokenizer import Tokenizer
from workbench.model.generate import Sampling, _left_padded
from workbench.model.host.generation import check_prompts, generate_host
from workbench.model.host.host_model import HostModel
from workbench.trace.record import Recorder
from workbench.trace.sampling import Sampling as RoutingSampling
from workbench.trace.schema import Trace
from workbench.trace.store import TraceWriter

__all__ = ["host_recorder", "record_host"]


def record_host(
    host: HostModel,
    text: str | Sequence[int] | Sequence[Sequence[int]],
    *,
    tokenizer: Tokenizer | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    recorder: Recorder | None = None,
    first_step: int = 0,
) -> Trace:
    """The routing of every MoE layer and token: of a text, and of what the host writes after it.

    The last token that is written is not routed, since nothing follows it. `step` in the trace is the number of
    the forward pass. Shared experts are no choices and do not appear.

    Args:
        text: to read; or its token ids; or several texts as token ids, read as one batch.
        tokenizer: turns text into tokens, and tokens into the pieces that views show.
        sampling: how to go on, greedy or drawn; None only reads.
        seed: of the draws.
        recorder: takes the passes, a writer to disk behind it if there is one; by default one in memory.
        first_step: number of the first pass.

    Raises:
        ValueError: no token, text without a tokenizer, or tokens outside the vocabulary.
    """
    prompts = _prompts(text, tokenizer)
    check_prompts(host, prompts)
    kept = host_recorder(host, tokenizer) if recorder is None else recorder
    if sampling is None or sampling.max_new_tokens < 1:
        _read(host, prompts, kept, first_step)
    else:
        for step, done in enumerate(generate_host(host, prompts, sampling, seed=seed), first_step):
            phase: Phase = "decode" if done.phase == "decode" else "prefill"
            kept.add(done.batch, done.output, phase=phase, step=step)
    return kept.trace()


def host_recorder(
    host: HostModel,
    tokenizer: Tokenizer | None = None,
    *,
    writer: TraceWriter | None = None,
    with_probabilities: bool = True,
    source: str | None = None,
) -> Recorder:
    """A recorder that says which model and tokenizer it hears.

    Args:
        writer: where blocks go; None keeps them in memory.
        with_probabilities: keep the probability of every expert, where the family shows its logits.
        source: what is read, in words.
    """
    attrs = {"model": host.model.config.to_json_string(), "device": str(host.device)}
    attrs |= {} if source is None else {"source": source}
    sampling = RoutingSampling(prob=with_probabilities)
    if tokenizer is None:
        return Recorder(writer, sampling=sampling, attrs=attrs)
    attrs["tokenizer"] = tokenizer.name
    return Recorder(writer, sampling=sampling, attrs=attrs, decode_piece=tokenizer.piece)


def _prompts(text: str | Sequence[int] | Sequence[Sequence[int]], tokenizer: Tokenizer | None) -> list[list[int]]:
    if isinstance(text, str):
        if tokenizer is None:
            raise ValueError("a text needs the tokenizer of the checkpoint; give tokenizer=, or token ids")
        lead = [] if tokenizer.start_id is None else [tokenizer.start_id]
        return [lead + tokenizer.encode(text)]
    alone = [token for token in text if isinstance(token, int)]
    several = [list(row) for row in text if not isinstance(row, int)]
    if alone and several:
        raise ValueError("expected token ids of one text, or a list of texts' token ids; got both mixed")
    return several or [alone]


def _read(host: HostModel, prompts: list[list[int]], recorder: Recorder, step: int) -> None:
    token_ids, mask = _left_padded(prompts, host.device)
    is_padded = not bool(mask.all())
    done = host.forward(token_ids, mask=mask if is_padded else None, last_only=True)
    recorder.add(Batch(token_ids=token_ids, mask=mask), done.output, phase="prefill", step=step)
