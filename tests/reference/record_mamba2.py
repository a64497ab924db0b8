"""Records `mamba2/`: transformers' own Mamba2ForCausalLM on its path in plain PyTorch, so that names, layout and numbers
are really theirs. Its casts to f32 are taken out: what is recorded is f64 throughout.

That path fills sequences up to whole chunks of zeros, which changes nothing before them; chunks of 4 make rows of 9, 12
and 5 cross their borders. Two groups: it gives neighbouring heads the same B and C, and takes the gated norm over all
channels (the authors' own code takes it over each group's; the two agree for one group, which published models have).
"""

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Mamba2Config, Mamba2ForCausalLM
from transformers.models.mamba2 import modeling_mamba2

import recording

VOCABULARY = 53


def normalise(self, hidden_states, gate=None):
    if gate is not None:
        hidden_states = hidden_states * torch.nn.functional.silu(gate)
    mean = hidden_states.pow(2).mean(-1, keepdim=True)
    return self.weight * hidden_states * torch.rsqrt(mean + self.variance_epsilon)


def run(model, batch):
    """Right-padded rows need no mask: nothing flows backwards, and padded targets are left out of the loss."""
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits
    real = recording.is_real(batch["target_lengths"], logits.shape[1])
    return {"logits": recording.masked(logits, real, 1)}


def in_chunks_of(size):
    def variant(model):
        for block in model.backbone.layers:
            block.mixer.chunk_size = size

    return variant


def main():
    recording.be_reproducible()
    torch.Tensor.float = lambda tensor: tensor
    modeling_mamba2.Mamba2RMSNorm.forward = normalise
    modeling_mamba2.MambaRMSNormGated.forward = normalise
    config = Mamba2Config(
        vocab_size=VOCABULARY, hidden_size=18, num_hidden_layers=2, state_size=5, conv_kernel=4, expand=2, num_heads=6,
        head_dim=6, n_groups=2, chunk_size=4, bos_token_id=0, eos_token_id=0, pad_token_id=0, residual_in_fp32=False,
    )
    model = Mamba2ForCausalLM(config)
    # With most seeds some gated norm divides by a small number, and changing the weights by half a unit in the last place
    # moves the logits several times as far as one f32 run happens to show. With this one, of twelve, it moves them least.
    recording.draw_weights(model, seed=50)
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved)
        tensors = load_file(Path(saved) / "model.safetensors")
        saved_config = json.loads((Path(saved) / "config.json").read_text())
    batch, steps = recording.text_batches(seed=42, vocabulary=VOCABULARY)
    # The size of chunks decides the order of sums alone, and with it rounding, by up to a factor of three.
    recording.record_case(
        "mamba2", saved_config, model, run, batch, steps, smoothing=0.0, tensors=tensors,
        variants=[in_chunks_of(size) for size in (1, 2, 3, 5, 6, 8, 12)],
    )


if __name__ == "__main__":
    main()
