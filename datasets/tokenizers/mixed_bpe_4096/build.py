"""Train the tokenizer on the train split of the bundled corpus, and write its card.

python datasets/tokenizers/mixed_bpe_4096/build.py [--out FOLDER]
"""

import argparse
import hashlib
import sys
from pathlib import Path

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from workbench.data.corpora.mixed import Mixed
from workbench.data.tokenizer import END_OF_TEXT, write_tokenizer_folder
from workbench.data.trained_tokenizer import TrainedTokenizer
from workbench.data.word_cache import WORDS

VOCAB_SIZE = 4096
NAME = "mixed_bpe_4096"


def train(corpus: Mixed) -> str:
    """The content of `tokenizer.json`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in corpus.read("train")), trainer)
    return str(tokenizer.to_str(pretty=True))


def card(corpus: Mixed, text: str) -> str:
    """The card, with what the tokenizer reaches on held-out text."""
    tokenizer = TrainedTokenizer(text, name=NAME, end_token=END_OF_TEXT)
    rows = []
    for domain in corpus.domains:
        held_out = list(corpus.documents("validation", domain))
        count = sum(map(len, tokenizer.encode_batch(held_out)))
        rows.append(f"| {domain} | {sum(len(part.encode()) for part in held_out) / count:.2f} |")
    template = (Path(__file__).resolve().parent / "card.md.template").read_text(encoding="utf-8")
    return template.format(
        name=NAME,
        vocab_size=tokenizer.vocab_size,
        end_token=END_OF_TEXT,
        end_id=tokenizer.end_id,
        library=tokenizers.__version__,
        corpus=corpus.fingerprint[:16],
        words=WORDS,
        ratios="\n".join(rows),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def main() -> None:
    """Train, write, say what came out."""
    parser = argparse.ArgumentParser(description="Train the tokenizer on the bundled corpus.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="where to write")
    out = parser.parse_args().out
    corpus = Mixed()
    text = train(corpus)
    write_tokenizer_folder(out, text, name=NAME, end_token=END_OF_TEXT)
    (out / "README.md").write_text(card(corpus, text), encoding="utf-8")
    sys.stdout.write((out / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
