"""The byte-level BPE of the checkpoint: training, files, token ids, and the rows of both text layouts.

    text.py --text FOLDER/train.txt --out FOLDER      writes vocab.json and merges.txt
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

from configs import ADDED_TOKENS, NOT_SPECIAL, TOKEN_REGEX

SIZE = 704


def build(vocab=None, merges=None, dropout=None):
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    model = models.BPE() if vocab is None else models.BPE(vocab, merges, dropout=dropout)
    tok = Tokenizer(model)
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(TOKEN_REGEX), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return tok


def train(lines, out: Path):
    from tokenizers import pre_tokenizers, trainers
    tok = build()
    trainer = trainers.BpeTrainer(vocab_size=SIZE, show_progress=False, min_frequency=2,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    # the prompt templates need "assistant" and "user" to be single tokens
    tok.train_from_iterator(list(lines) + ["assistant\nuser\n"] * 200_000, trainer)
    model = json.loads(tok.to_str())["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (out / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    (out / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")


class Tokens:
    """Token ids of a vocabulary folder. `dropout` skips merges at random, as a training augmentation."""

    def __init__(self, folder: Path, dropout: float | None = None):
        self.vocab = json.loads((folder / "vocab.json").read_text())
        self.merges = [tuple(m.split(" ")) for m in (folder / "merges.txt").read_text().splitlines()[1:] if m]
        self.tok = build(self.vocab, self.merges, dropout)
        self.added = {t: len(self.vocab) + i for i, t in enumerate(ADDED_TOKENS)}
        self.role = [self.added["<|im_start|>"], self.vocab["assistant"], self.vocab["Ċ"]]
        self.bos, self.eos, self.pad = (self.added[t] for t in ("<tts_text_bos>", "<tts_text_eod>", "<tts_pad>"))
        self.size = (len(self.vocab) + len(ADDED_TOKENS) + 63) // 64 * 64

    def __call__(self, lines):
        return [e.ids for e in self.tok.encode_batch(list(lines))]

    def with_places(self, lines):
        """(token ids, where the middle of each token is in its text, 0 to 1) of each text."""
        return [(e.ids, [(a + b) / 2 / max(1, len(line)) for a, b in e.offsets])
                for line, e in zip(lines, self.tok.encode_batch(list(lines)))]


def write_tokenizer(folder: Path, out: Path):
    """vocab.json, merges.txt, tokenizer_config.json and preprocessor_config.json of a checkpoint."""
    t = Tokens(folder)
    for name in ("vocab.json", "merges.txt"):
        (out / name).write_bytes((folder / name).read_bytes())
    decoder = {str(i): dict(content=s, lstrip=False, normalized=False, rstrip=False, single_word=False,
                            special=s not in NOT_SPECIAL) for s, i in t.added.items()}
    (out / "tokenizer_config.json").write_text(json.dumps(dict(
        add_bos_token=False, add_prefix_space=False, added_tokens_decoder=decoder,
        additional_special_tokens=ADDED_TOKENS[1:14], bos_token=None, clean_up_tokenization_spaces=False,
        eos_token="<|im_end|>", errors="replace", model_max_length=131072, pad_token="<|endoftext|>",
        split_special_tokens=False, tokenizer_class="Qwen2Tokenizer", unk_token=None), indent=2, ensure_ascii=False))
    (out / "preprocessor_config.json").write_text(json.dumps(dict(
        padding_side="left", padding_value=0.0, processor_class="Qwen3TTSProcessor", return_attention_mask=True),
        indent=2))
    return t


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--text", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    lines = a.text.read_text().splitlines()
    train(lines, a.out)
    t = Tokens(a.out)
    some = lines[:5000]
    ids = t(some)
    print(f"{len(t.vocab)} entries, {sum(map(len, some)) / sum(map(len, ids)):.2f} characters a token; "
          f"{t.tok.encode('Hello world, this is a test.').tokens}")


if __name__ == "__main__":
    main()
