"""How cacheable the models of `make checkpoints` are, and how far each causal policy goes from LRU to the optimum.

They differ in their balance loss and in a shared expert alone. Held-out text, one token at a time; the learned bits are
fitted on training text. Without checkpoints it says so and measures nothing.
"""

from itertools import islice
from pathlib import Path

from workbench.core.spec import Spec
from workbench.data.catalog import load_tokenizer, open_corpus
from workbench.model.folders import tokenizer_folder
from workbench.model.recorded import record_text, recorder_of
from workbench.model.weights import load
from workbench.offload import cache_curves, cacheability_of, discard_labels, fit_bits, requests_of
from workbench.offload.policies import POLICIES

FOLDER, TOKENS, WINDOW = Path("runs/checkpoints"), 6000, 512
ORACLES = ("min", "min_bypass", "discard_bits", "phase_bits")


def recorded(model, tokenizer, split):
    """The routing of documents of every domain in turn, window after window."""
    corpus = open_corpus("mixed")
    texts = [islice(corpus.documents(split, domain), 3) for domain in corpus.domains]
    most = TOKENS // len(texts) // 2
    ids = [token for one in texts for text in one for token in tokenizer.encode(text)[:most]][:TOKENS]
    recorder = recorder_of(model, tokenizer)
    for step, first in enumerate(range(0, len(ids), WINDOW)):
        record_text(model, tokenizer, ids[first : first + WINDOW], recorder, step=step)
    return recorder.trace()


def gaps(trace, training):
    """Hit rates at an eighth, a quarter and a half of the experts, and what share of LRU's gap each policy closes."""
    requests, before = (requests_of(one, passes="token") for one in (trace, training))
    sizes = [requests.num_pages // part for part in (8, 4, 2)]
    specs = [Spec(name) for name in POLICIES.names() if name not in ORACLES]
    hot = [int((before.page == page).sum()) for page in range(before.num_pages)]
    specs.append(Spec("static", {"counts": hot}))
    weights = fit_bits(before, discard_labels(before, sizes[1]))
    specs.append(Spec("discard_bits", {"bits": "learned", "weights": weights}))
    speed = {"block_bytes": 1.0, "bytes_per_second": 1.0}
    hits = cache_curves(requests, ["min", *specs], sizes, **speed)["hit_rate"].sel(source="recorded")
    lru, best = hits.sel(policy="lru"), hits.sel(policy="min")
    return hits, (hits - lru) / (best - lru)


def bench_checkpoints_under_every_policy():
    models = sorted(path for path in FOLDER.glob("*") if path.is_dir()) if FOLDER.is_dir() else []
    if not models:
        print(f"\n{FOLDER} is empty: run `make checkpoints` first")
    for folder in models:
        model, tokenizer = load(folder).eval(), load_tokenizer(tokenizer_folder(folder))
        trace, training = (recorded(model, tokenizer, split) for split in ("validation", "train"))
        print(f"\n## {folder.name}: {cacheability_of(trace, miss_seconds=1e-3).to_text()}")
        hits, share = gaps(trace, training)
        sizes = "".join(f"{size:>8} exp" for size in hits["capacity"].values)
        print(f"{'policy':44}{sizes}   share of LRU's gap to MIN")
        for policy in hits["policy"].values.tolist():
            rates = "".join(f"{value:12.4f}" for value in hits.sel(policy=policy).values)
            closed = "".join(f"{value:8.2f}" for value in share.sel(policy=policy).values)
            print(f"{policy[:42]:44}{rates}   {closed}")
        causal = share.drop_sel(policy="min")
        print(f"best causal: {float(causal.max('policy').mean()):.2f} of the gap in the mean of the sizes (goal 0.33)")
