"""Records `gpt/`: transformers' own GPT2LMHeadModel, so that names, layout and numbers are really theirs."""

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

import recording

VOCABULARY = 53


def run(model, batch):
    """Right-padded rows need no mask: attention is causal, and padded targets are left out of the loss."""
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits
    real = recording.is_real(batch["target_lengths"], logits.shape[1])
    return {"logits": recording.masked(logits, real, 1)}


def greedy(model, prompts, new_tokens):
    """Each prompt alone through transformers' `generate`, with the smallest lead of a chosen token over the second."""
    model = model.double()
    records = []
    for prompt in prompts:
        with torch.no_grad():
            output = model.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64), do_sample=False,
                max_new_tokens=new_tokens, eos_token_id=None, pad_token_id=0,
                return_dict_in_generate=True, output_logits=True,
            )
        best = torch.stack(output.logits)[:, 0].topk(2).values
        lead = float((best[:, 0] - best[:, 1]).min())
        assert lead > 1e-3, "too close to call in f32: choose another seed"
        records.append({"prompt": prompt, "output": output.sequences[0, len(prompt) :].tolist(), "smallest_lead": lead})
    return records


def main():
    recording.be_reproducible()
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=40, n_embd=18, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1, attn_implementation="eager",
    )
    model = GPT2LMHeadModel(config)
    recording.draw_weights(model, seed=11)
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved)
        tensors = load_file(Path(saved) / "model.safetensors")
        saved_config = json.loads((Path(saved) / "config.json").read_text())
    batch, steps = recording.text_batches(seed=12, vocabulary=VOCABULARY)
    recording.record_case("gpt", saved_config, model, run, batch, steps, smoothing=0.0, tensors=tensors)

    prompts = [[7], [3, 14, 15, 9], [52, 0, 31], [8, 8, 8, 8, 8, 8, 8, 8], [20, 41, 1, 33, 5]]
    decoding = {"how": "transformers generate, greedy, 20 new tokens, f64", "cases": greedy(model, prompts, 20)}
    (recording.HERE / "gpt" / "decoding.json").write_text(json.dumps(decoding, indent=1) + "\n")


if __name__ == "__main__":
    main()
