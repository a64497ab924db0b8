"""Shows that the peers' fast models compute what the references in tests/reference say: loss and gradients."""

from pathlib import Path

import torch
from safetensors.torch import load_file

import models

REFERENCE = Path(__file__).resolve().parent.parent.parent / "tests" / "reference"


def check(kind, case, smoothing):
    config, tensors = models.load(REFERENCE / case)
    expected = load_file(REFERENCE / case / "expected.safetensors")
    build = models.KINDS[kind]
    model = build(config, tensors, 0.0).double()
    if kind == "transformer":
        model.logits_bias, model.positions = model.logits_bias.double(), model.positions.double()
        batch = build.prepare({key: value for key, value in expected.items() if "." not in key})
        batch["source_mask"] = batch["source_mask"].double()
        loss = model.loss(batch, smoothing)
    else:  # this peer takes full rows only: the reference's rows one by one, weighed by their lengths
        lengths, loss = expected["target_lengths"].tolist(), 0.0
        for row, length in enumerate(lengths):
            batch = {key: expected[key][row : row + 1, :length] for key in ("input_ids", "target_out")}
            loss = loss + model.loss(batch, smoothing) * length / sum(lengths)
    torch.testing.assert_close(loss.detach(), expected["loss"], rtol=1e-12, atol=0)
    loss.backward()
    for name in model.names:
        wanted = torch.cat([expected[f"gradient.{part}"] for part in unfused(name)])
        if name.endswith(models.Gpt.TURNED):
            wanted = wanted.T
        torch.testing.assert_close(model[name].grad, wanted, rtol=1e-10, atol=1e-13)
    print(f"{case}: the loss and {len(model.names)} gradients are the reference's")


def unfused(name):
    for fused, parts in (("qkv_proj", "qkv"), ("kv_proj", "kv")):
        if f".{fused}." in name:
            return [name.replace(fused, f"{part}_proj") for part in parts]
    return [name]


if __name__ == "__main__":
    check("gpt", "gpt", 0.0)
    check("transformer", "transformer-post-norm", 0.1)
