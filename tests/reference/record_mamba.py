"""Records `mamba/`: transformers' own MambaForCausalLM on its path in plain PyTorch, so that names, layout and numbers
are really theirs. Its casts to f32 are taken out: what is recorded is f64 throughout."""

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import MambaConfig, MambaForCausalLM
from transformers.models.mamba import modeling_mamba

import recording

VOCABULARY = 53


def normalise(self, hidden_states):
    mean = hidden_states.pow(2).mean(-1, keepdim=True)
    return self.weight * hidden_states * torch.rsqrt(mean + self.variance_epsilon)


def run(model, batch):
    """Right-padded rows need no mask: nothing flows backwards, and padded targets are left out of the loss."""
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits
    real = recording.is_real(batch["target_lengths"], logits.shape[1])
    return {"logits": recording.masked(logits, real, 1)}


def main():
    recording.be_reproducible()
    torch.Tensor.float = lambda tensor: tensor
    modeling_mamba.MambaRMSNorm.forward = normalise
    config = MambaConfig(
        vocab_size=VOCABULARY, hidden_size=18, num_hidden_layers=2, state_size=5, conv_kernel=4, expand=2,
        time_step_rank=3, bos_token_id=0, eos_token_id=0, pad_token_id=0, residual_in_fp32=False,
    )
    model = MambaForCausalLM(config)
    recording.draw_weights(model, seed=31)
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved)
        tensors = load_file(Path(saved) / "model.safetensors")
        saved_config = json.loads((Path(saved) / "config.json").read_text())
    batch, steps = recording.text_batches(seed=32, vocabulary=VOCABULARY)
    recording.record_case(
        "mamba", saved_config, model, run, batch, steps, smoothing=0.0, tensors=tensors,
        decays=lambda name, parameter: parameter.dim() >= 2 and not name.endswith("A_log"),
    )


if __name__ == "__main__":
    main()
