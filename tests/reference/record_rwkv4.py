"""Records `rwkv4/`: transformers' own RwkvForCausalLM on its path in plain PyTorch, so that names, layout and numbers are
really theirs. Its casts to f32 are taken out: what is recorded is f64 throughout. Its halving of the residual stream at
every few layers, which is for f16, is off."""

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import RwkvConfig, RwkvForCausalLM

import recording

VOCABULARY = 53


def spread_out(model):
    """Gains around one, mixes around a half, and decays that forget at once, in a few positions, and hardly."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("ln1.weight", "ln2.weight", "pre_ln.weight")):
                parameter.add_(1)
            if "time_mix" in name:
                parameter.add_(0.5)
            if "time_decay" in name:
                parameter.add_(torch.linspace(-4, 2, len(parameter)))


def run(model, batch):
    """Right-padded rows need no mask: nothing flows backwards, and padded targets are left out of the loss."""
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits
    real = recording.is_real(batch["target_lengths"], logits.shape[1])
    return {"logits": recording.masked(logits, real, 1)}


def main():
    recording.be_reproducible()
    torch.Tensor.float = lambda tensor: tensor
    config = RwkvConfig(
        vocab_size=VOCABULARY, context_length=64, hidden_size=18, num_hidden_layers=2, attention_hidden_size=14,
        intermediate_size=30, rescale_every=0, bos_token_id=0, eos_token_id=0,
    )
    model = RwkvForCausalLM(config)
    recording.draw_weights(model, seed=33)
    spread_out(model)
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved)
        tensors = load_file(Path(saved) / "model.safetensors")
        saved_config = json.loads((Path(saved) / "config.json").read_text())
    batch, steps = recording.text_batches(seed=34, vocabulary=VOCABULARY)
    recording.record_case(
        "rwkv4", saved_config, model, run, batch, steps, smoothing=0.0, tensors=tensors,
        decays=lambda _, parameter: parameter.dim() == 2,
        rate=lambda name: 2.0 if name.endswith("time_decay") else 3.0 if name.endswith("time_first") else 1.0,
    )


if __name__ == "__main__":
    main()
