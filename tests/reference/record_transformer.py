"""Records `transformer-post-norm/` (transformers' own MarianMTModel) and `transformer-pre-norm/` (our twin of it).

The twin below is arXiv 1706.03762 in plain torch, with Marian's tensor names. Before anything is written, its post-norm
form is shown to equal MarianMTModel's numbers, logits, attention and every gradient, with shared and with separate
embeddings; the pre-norm recording then differs from it only in where the norms stand.

`transformer-post-norm/decoding.json` holds what CTranslate2 decodes from the same weights.
"""

import copy
import json
import math
import sys
import tempfile
from pathlib import Path

import ctranslate2
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import MarianConfig, MarianMTModel

import recording

sys.path.append(str(recording.HERE.parent.parent / "benches" / "peers"))
from ctranslate2_model import WeftConverter, words  # noqa: E402 (the benchmark's converter)

SMOOTHING = 0.1
TEACHING_STEPS = 500
SIZES = dict(
    vocab_size=47, d_model=20, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=2,
    encoder_ffn_dim=28, decoder_ffn_dim=36, activation_function="relu", dropout=0.1, attention_dropout=0.1,
    activation_dropout=0.1, max_position_embeddings=32, scale_embedding=True, static_position_embeddings=True,
    pad_token_id=recording.PAD, bos_token_id=recording.START, decoder_start_token_id=recording.START,
    eos_token_id=recording.END, forced_eos_token_id=None, attn_implementation="eager",
)


def sinusoids(longest, width):
    """Marian's positions: sines in the first half, cosines in the second, rounded to f32 as every f32 model has them."""
    frequency = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(longest, dtype=torch.float64)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1).float()


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, queries, keys, may_see):
        """`may_see` broadcasts to [batch, heads, query, key]. Returns the output and the weights."""
        q = self.q_proj(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k = self.k_proj(keys).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        v = self.v_proj(keys).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = torch.softmax(scores.masked_fill(~may_see, -torch.inf), dim=-1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2)), weights


class Layer(nn.Module):
    """An encoder layer, or with `attends_source` a decoder layer."""

    def __init__(self, width, heads, ffn, normalize_before, attends_source):
        super().__init__()
        self.normalize_before = normalize_before
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        if attends_source:
            self.encoder_attn = Attention(width, heads)
            self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def sublayer(self, x, norm, function):
        """Pre-norm: x + f(norm(x)). Post-norm: norm(x + f(x))."""
        return x + function(norm(x)) if self.normalize_before else norm(x + function(x))

    def forward(self, x, may_see, source=None, may_see_source=None):
        weights = []

        def self_attention(x):
            return self.self_attn(x, x, may_see)[0]

        def source_attention(x):
            output, seen = self.encoder_attn(x, source, may_see_source)
            weights.append(seen)
            return output

        x = self.sublayer(x, self.self_attn_layer_norm, self_attention)
        if source is not None:
            x = self.sublayer(x, self.encoder_attn_layer_norm, source_attention)
        x = self.sublayer(x, self.final_layer_norm, lambda x: self.fc2(F.relu(self.fc1(x))))
        return x, weights[0] if weights else None


class Stack(nn.Module):
    def __init__(self, config, layers, heads, ffn, attends_source):
        super().__init__()
        before = config.normalize_before
        self.layers = nn.ModuleList(Layer(config.d_model, heads, ffn, before, attends_source) for _ in range(layers))
        if before:
            self.layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, x, *context):
        all_weights = []
        for layer in self.layers:
            x, weights = layer(x, *context)
            all_weights.append(weights)
        return (self.layer_norm(x) if hasattr(self, "layer_norm") else x), all_weights


class Transformer(nn.Module):
    """The twin. The output projection is the decoder's embedding; with one vocabulary the encoder's as well."""

    def __init__(self, config):
        super().__init__()
        self.scale = math.sqrt(config.d_model)
        self.model = nn.Module()
        self.model.encoder = Stack(
            config, config.encoder_layers, config.encoder_attention_heads, config.encoder_ffn_dim, False
        )
        self.model.decoder = Stack(
            config, config.decoder_layers, config.decoder_attention_heads, config.decoder_ffn_dim, True
        )
        if config.share_encoder_decoder_embeddings:
            self.model.shared = nn.Embedding(config.vocab_size, config.d_model)
        else:
            self.model.encoder.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
            self.model.decoder.embed_tokens = nn.Embedding(config.decoder_vocab_size, config.d_model)
        self.register_buffer("positions", sinusoids(config.max_position_embeddings, config.d_model), persistent=False)
        self.register_buffer("final_logits_bias", torch.zeros(1, config.decoder_vocab_size))

    def forward(self, batch):
        if hasattr(self.model, "shared"):
            source_table = target_table = self.model.shared.weight
        else:
            source_table = self.model.encoder.embed_tokens.weight
            target_table = self.model.decoder.embed_tokens.weight
        source_longest, target_longest = batch["source_ids"].shape[1], batch["target_in"].shape[1]
        is_word = recording.is_real(batch["source_lengths"], source_longest)[:, None, None, :]
        is_past = torch.ones(target_longest, target_longest, dtype=torch.bool).tril()
        x = source_table[batch["source_ids"]] * self.scale + self.positions[:source_longest]
        source, _ = self.model.encoder(x, is_word)
        y = target_table[batch["target_in"]] * self.scale + self.positions[:target_longest]
        y, cross_attention = self.model.decoder(y, is_past, source, is_word)
        return y @ target_table.T + self.final_logits_bias, cross_attention


def outputs(logits, cross_attention, batch):
    """Every layer's attention to the source [batch, heads, target, source]; `alignment` is the last layer's mean."""
    real = recording.is_real(batch["target_lengths"], logits.shape[1])
    result = {"logits": recording.masked(logits, real, 1)}
    for layer, weights in enumerate(cross_attention):
        result[f"cross_attention.{layer}"] = recording.masked(weights, real, 2)
    result["alignment"] = recording.masked(cross_attention[-1].mean(dim=1), real, 1)
    return result


def run_twin(model, batch):
    logits, cross_attention = model(batch)
    return outputs(logits, cross_attention, batch)


def run_marian(model, batch):
    source_mask = recording.is_real(batch["source_lengths"], batch["source_ids"].shape[1]).long()
    answer = model(
        input_ids=batch["source_ids"], attention_mask=source_mask, decoder_input_ids=batch["target_in"],
        output_attentions=True, use_cache=False,
    )
    return outputs(answer.logits, answer.cross_attentions, batch)


def draw(model, seed):
    recording.draw_weights(model, seed)
    generator = torch.Generator().manual_seed(seed + 1000)
    model.final_logits_bias.copy_(torch.randn(model.final_logits_bias.shape, generator=generator) * 0.3)


def marian(config):
    """MarianMTModel with the positions left as they are made, not drawn."""
    model = MarianMTModel(config)
    for part in (model.model.encoder, model.model.decoder):
        part.embed_positions.weight.requires_grad_(False)
    return model


def draw_marian(model, seed):
    positions = model.model.encoder.embed_positions.weight.clone()
    draw(model, seed)
    for part in (model.model.encoder, model.model.decoder):
        part.embed_positions.weight.copy_(positions)


def teach(model, run, vocabulary, steps):
    """A short training in f64 to write the source backwards: enough that beams differ from each other and sentences
    end by themselves, which random weights do not do."""
    generator = torch.Generator().manual_seed(99)
    optimizer = torch.optim.AdamW([p for p in model.double().parameters() if p.requires_grad], lr=4e-3)
    for _ in range(steps):
        lengths = torch.randint(2, 9, (32,), generator=generator).tolist()
        batch = recording.translation_batch(generator, lengths, lengths, vocabulary, vocabulary)
        for row, length in enumerate(lengths):
            backwards = batch["source_ids"][row, : length - 1].flip(0)
            batch["target_out"][row, : length - 1] = backwards
            batch["target_in"][row, 1:length] = backwards
        optimizer.zero_grad()
        total, count = recording.summed_loss(run(model, batch)["logits"], batch, SMOOTHING)
        (total / count).backward()
        optimizer.step()
    print(f"taught to a loss of {(total / count).item():.3f}")
    model.float()


def saved_by_transformers(model):
    """The tensors and the config as `save_pretrained` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors"), json.loads((Path(folder) / "config.json").read_text())


def check_twin(theirs, config, batch):
    """The twin with the weights that transformers saved gives transformers' numbers."""
    twin = Transformer(config)
    tensors, _ = saved_by_transformers(theirs)
    missing, extra = twin.load_state_dict(tensors, strict=False)
    assert not missing and not extra, (missing, extra)
    theirs, twin = copy.deepcopy(theirs).eval().double(), twin.double()
    results = []
    for model, run in ((theirs, run_marian), (twin, run_twin)):
        (output,), gradients = recording.outputs_and_gradients(model, run, [batch], SMOOTHING)
        results.append(output | gradients)
    their, ours = results
    names = {name: name for name in their}
    assert set(names) == set(ours), set(names) ^ set(ours)
    for name in names:
        torch.testing.assert_close(ours[name], their[name], rtol=1e-11, atol=1e-13, msg=lambda m: f"{name}: {m}")
    print(f"the twin equals MarianMTModel in {len(names)} tensors")


def decode_with_ctranslate2(model, tensors, config, longest=24):
    """Greedy and beam-4 outputs of eight sources, each alone; CTranslate2's defaults but for what is listed."""
    generator = torch.Generator().manual_seed(77)
    sources = [
        torch.randint(recording.FIRST_WORD, config.vocab_size, (length - 1,), generator=generator).tolist()
        + [recording.END] for length in (2, 3, 4, 5, 6, 7, 9, 12)
    ]
    config = config.to_dict()
    names = words(config)
    with tempfile.TemporaryDirectory() as folder:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        WeftConverter(config, arrays).convert(folder, force=True)
        translator = ctranslate2.Translator(folder, device="cpu", compute_type="float32", intra_threads=1)
        cases = []
        for source in sources:
            case = {"source": source}
            for key, beam in (("greedy", 1), ("beam_4", 4)):
                (result,) = translator.translate_batch(
                    [[names[token] for token in source]], beam_size=beam, num_hypotheses=beam, return_scores=True,
                    return_end_token=True, max_decoding_length=longest,
                    min_decoding_length=0, length_penalty=1,
                )
                case[key] = [
                    {"tokens": [names.index(token) for token in tokens], "score": score}
                    for tokens, score in zip(result.hypotheses, result.scores)
                ]
            cases.append(case)
    check_scores(copy.deepcopy(model).eval().double(), cases)
    return {
        "how": "CTranslate2, float32, each source alone",
        "options": {"max_decoding_length": longest, "min_decoding_length": 0, "length_penalty": 1, "patience": 1},
        "score": "sum of log probabilities of the tokens, the end included, divided by the number of tokens",
        "cases": cases,
    }


@torch.no_grad()
def check_scores(model, cases):
    """Every recorded score from transformers' logits in f64, and the greedy outputs as its own choices."""
    finished = 0
    for case in cases:
        for hypothesis in case["greedy"] + case["beam_4"]:
            tokens = hypothesis["tokens"]
            batch = {
                "source_ids": torch.tensor([case["source"]]), "source_lengths": torch.tensor([len(case["source"])]),
                "target_in": torch.tensor([[recording.START] + tokens[:-1]]),
                "target_lengths": torch.tensor([len(tokens)]),
            }
            log_probabilities = run_marian(model, batch)["logits"][0].log_softmax(-1)
            score = float(log_probabilities.gather(1, torch.tensor(tokens)[:, None]).sum()) / len(tokens)
            assert abs(score - hypothesis["score"]) < 1e-5, (score, hypothesis)
            finished += tokens[-1] == recording.END
            if hypothesis in case["greedy"]:
                best = log_probabilities.topk(2).values
                assert float((best[:, 0] - best[:, 1]).min()) > 1e-3, "too close to call in f32: choose another seed"
                assert log_probabilities.argmax(-1).tolist() == tokens
        gaps = [a["score"] - b["score"] for a, b in zip(case["beam_4"], case["beam_4"][1:])]
        assert min(gaps) > 1e-4, "too close to call in f32: choose another seed"
    lengths = [[len(h["tokens"]) for h in case["beam_4"]] for case in cases]
    print(f"decoding: {finished} of {5 * len(cases)} outputs finished; beam lengths {lengths}")


def main():
    recording.be_reproducible()
    config = MarianConfig(share_encoder_decoder_embeddings=True, **SIZES)
    config.normalize_before = False
    model = marian(config)
    draw_marian(model, seed=51)
    teach(model.eval(), run_marian, vocabulary=47, steps=TEACHING_STEPS)
    batch, steps = recording.translation_batches(seed=52, source_vocabulary=47, target_vocabulary=47)
    check_twin(model, config, batch)
    tensors, saved_config = saved_by_transformers(model)
    recording.record_case(
        "transformer-post-norm", saved_config, model, run_marian, batch, steps, SMOOTHING, tensors=tensors
    )
    decoding = decode_with_ctranslate2(model, tensors, config)
    (recording.HERE / "transformer-post-norm" / "decoding.json").write_text(json.dumps(decoding, indent=1) + "\n")

    # Separate vocabularies: the output is tied to the decoder's embedding only.
    config = MarianConfig(share_encoder_decoder_embeddings=False, **(SIZES | {"vocab_size": 41}))
    config.normalize_before = False
    model = marian(config)
    model.resize_decoder_token_embeddings(47)  # its constructor makes both tables of the source's size
    draw_marian(model, seed=53)
    batch, steps = recording.translation_batches(seed=54, source_vocabulary=41, target_vocabulary=47)
    check_twin(model, config, batch)

    config.normalize_before = True
    _, saved_config = saved_by_transformers(model)
    twin = Transformer(config)
    draw(twin, seed=55)
    recording.record_case("transformer-pre-norm", saved_config, twin, run_twin, batch, steps, SMOOTHING)


if __name__ == "__main__":
    main()
