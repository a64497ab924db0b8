"""Shows that transformers opens what `weft train` saves: trains a little model of each architecture that both know,
opens its folder with `from_pretrained`, and compares what both make of a text.

    python open_with_transformers.py ../../target/release/weft

Language models: the mean loss of a text's tokens, which `weft evaluate` prints. The translator: greedy translations."""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer

# Opened by the class that config.json names.
LANGUAGE_MODELS = {
    "gpt": transformers.GPT2LMHeadModel,
    "llama": transformers.MistralForCausalLM,
    "mamba": transformers.MambaForCausalLM,
    "mamba2": transformers.Mamba2ForCausalLM,
    "rwkv4": transformers.RwkvForCausalLM,
}
# Of the mean loss, as a part of it: both compute in f32, in other orders.
TOLERANCE = 1e-5
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def text(lines, seed):
    draw = random.Random(seed)
    return "\n".join(" ".join(draw.choice(WORDS) for _ in range(draw.randint(2, 7))) for _ in range(lines)) + "\n"


def weft(program, *arguments, **options):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def opened(kind, model):
    """The model; what its class does not find in the file, or does not know, ends the comparison."""
    found, report = kind.from_pretrained(model, output_loading_info=True)
    assert not report["mismatched_keys"] and not report["unexpected_keys"], report
    assert not report["missing_keys"], report
    return found.eval()


def language_model(program, folder, name, kind):
    (folder / "book.txt").write_text(text(400, 1))
    held_out = text(12, 2)
    (folder / "held-out.txt").write_text(held_out)
    run = folder / name
    shape = ["--hidden-size", 64, "--layers", 2, "--window", 512, "--steps", 20, "--batch-tokens", 1024]
    weft(program, "train", "--train", folder / "book.txt", "--architecture", name, "--tokenizer", "characters",
         *shape, "--output", run)
    ours = weft(program, "evaluate", run, "--text", folder / "held-out.txt", "--window", 512, "--json")
    ours = json.loads(ours)["nats_per_token"]
    ids = Tokenizer.from_file(str(run / "model" / "tokenizer.json")).encode(held_out, add_special_tokens=False).ids
    ids = torch.tensor([ids[:512]])
    assert ids.shape[1] < 512, "the text fits one window"
    with torch.no_grad():
        logits = opened(kind, run / "model")(input_ids=ids).logits
    theirs = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).item()
    print(f"{name:12} weft {ours:.6f}  transformers {theirs:.6f}")
    assert abs(ours - theirs) < TOLERANCE * theirs, name


def translator(program, folder):
    for name, lines, seed in [("train", 800, 3), ("test", 20, 4)]:
        source = text(lines, seed)
        (folder / f"{name}.source").write_text(source)
        (folder / f"{name}.target").write_text(source.upper())
    run = folder / "transformer"
    pairs = ["--train", folder / "train.source", folder / "train.target"]
    pairs += ["--validation", folder / "test.source", folder / "test.target"]
    shape = ["--hidden-size", 64, "--layers", 2, "--heads", 2, "--vocab-size", 300, "--steps", 300, "--batch-tokens", 512]
    weft(program, "train", *pairs, "--architecture", "transformer", *shape, "--output", run)
    source = (folder / "test.source").read_text()
    ours = weft(program, "translate", run, "--beam", 1, "--max-length", 60, input=source).splitlines()
    tokenizer = Tokenizer.from_file(str(run / "model" / "tokenizer.json"))
    model = opened(transformers.MarianMTModel, run / "model")
    theirs = []
    for line in source.splitlines():
        ids = torch.tensor([tokenizer.encode(line, add_special_tokens=False).ids + [model.config.eos_token_id]])
        with torch.no_grad():
            output = model.generate(input_ids=ids, num_beams=1, do_sample=False, max_new_tokens=60)
        theirs.append(tokenizer.decode(output[0].tolist(), skip_special_tokens=True))
    print(f"{'transformer':12} {sum(a == b for a, b in zip(ours, theirs))} of {len(ours)} translations are the same")
    assert ours == theirs, list(zip(ours, theirs))


def main():
    program = Path(sys.argv[1]).resolve()
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in LANGUAGE_MODELS.items():
            language_model(program, Path(folder), name, kind)
        translator(program, Path(folder))


if __name__ == "__main__":
    main()
