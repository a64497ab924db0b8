"""Records `llama/`: transformers' own MistralForCausalLM with its attention in plain PyTorch, so that names, layout and
numbers are really theirs. Its casts to f32 are taken out: what is recorded is f64 throughout."""

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import MistralConfig, MistralForCausalLM
from transformers.models.mistral import modeling_mistral

import recording

VOCABULARY = 53


def normalise(self, hidden_states):
    mean = hidden_states.pow(2).mean(-1, keepdim=True)
    return self.weight * hidden_states * torch.rsqrt(mean + self.variance_epsilon)


def attend(module, query, key, value, attention_mask, scaling, dropout=0.0, **_):
    """Theirs, but for the softmax, which they take in f32."""
    key = modeling_mistral.repeat_kv(key, module.num_key_value_groups)
    value = modeling_mistral.repeat_kv(value, module.num_key_value_groups)
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, :, : key.shape[-2]]
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


def run(model, batch):
    """Right-padded rows need no mask: nothing flows backwards, and padded targets are left out of the loss. Angles are
    f64 for every model: f32 code may round them once, when they are cosines and sines."""
    model.model.rotary_emb.inv_freq = 1 / model.config.rope_theta ** (torch.arange(0, 4, 2, dtype=torch.float64) / 4)
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits
    real = recording.is_real(batch["target_lengths"], logits.shape[1])
    return {"logits": recording.masked(logits, real, 1)}


def sums_reversed(model):
    """The same products, their terms added in another order."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.forward = lambda x, linear=module: torch.nn.functional.linear(x.flip(-1), linear.weight.flip(-1))


def main():
    recording.be_reproducible()
    torch.Tensor.float = lambda tensor: tensor if tensor.is_floating_point() else tensor.double()
    modeling_mistral.MistralRMSNorm.forward = normalise
    modeling_mistral.eager_attention_forward = attend
    # No token for padding: theirs would have no gradient, and here it is a word like any other.
    config = MistralConfig(
        vocab_size=VOCABULARY, hidden_size=18, intermediate_size=26, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=4, max_position_embeddings=64, sliding_window=5, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=0, attn_implementation="eager",
    )
    model = MistralForCausalLM(config)
    recording.draw_weights(model, seed=51)
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved)
        tensors = load_file(Path(saved) / "model.safetensors")
        saved_config = json.loads((Path(saved) / "config.json").read_text())
    batch, steps = recording.text_batches(seed=52, vocabulary=VOCABULARY)
    recording.record_case(
        "llama", saved_config, model, run, batch, steps, smoothing=0.0, tensors=tensors,
        decays=lambda name, parameter: parameter.dim() >= 2, variants=[sums_reversed],
    )


if __name__ == "__main__":
    main()
