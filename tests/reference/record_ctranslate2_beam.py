"""Records what CTranslate2's beam search finds, for crates/weft-decode/tests/ctranslate2.rs.

    pip install ctranslate2==4.8.5 numpy
    python tests/reference/record_ctranslate2_beam.py

The model is a Transformer whose layers add nothing: the embeddings are the identity matrix, attention and feed-forward
are zero, there are no norms after the residual stream. So the logits of the next token are exactly one row of a table
that depends on the last token alone, and the Rust test needs the table instead of a model.
"""

import json
import pathlib
import tempfile

import ctranslate2
import numpy as np
from ctranslate2.specs import TransformerSpec

OUT = pathlib.Path(__file__).parents[2] / "crates/weft-decode/tests/data/ctranslate2_beam.json"
BOS, EOS = 1, 2


def build(table, folder):
    """Saves a model whose logits after token t are table[t]."""
    size = len(table)
    zeros = lambda *shape: np.zeros(shape, dtype=np.float32)
    ones = lambda *shape: np.ones(shape, dtype=np.float32)
    spec = TransformerSpec.from_config(1, 1, pre_norm=True, no_final_norm=True)

    def attention(layer, outputs):
        layer.layer_norm.gamma, layer.layer_norm.beta = ones(size), zeros(size)
        for linear, rows in zip(layer.linear, outputs):
            linear.weight, linear.bias = zeros(rows, size), zeros(rows)

    def feed_forward(layer):
        layer.layer_norm.gamma, layer.layer_norm.beta = ones(size), zeros(size)
        for linear in (layer.linear_0, layer.linear_1):
            linear.weight, linear.bias = zeros(size, size), zeros(size)

    for side in (spec.encoder, spec.decoder):
        side.scale_embeddings = False
        side.position_encodings.encodings = zeros(300, size)
        attention(side.layer[0].self_attention, (3 * size, size))
        feed_forward(side.layer[0].ffn)
    attention(spec.decoder.layer[0].attention, (size, 2 * size, size))
    spec.encoder.embeddings[0].weight = np.eye(size, dtype=np.float32)
    spec.decoder.embeddings.weight = np.eye(size, dtype=np.float32)
    spec.decoder.projection.weight = np.ascontiguousarray(table.T)
    spec.decoder.projection.bias = zeros(size)
    tokens = ["<unk>", "<s>", "</s>"] + [f"t{i}" for i in range(3, size)]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.add_attribute("decoder_start_token", "<s>")
    spec.validate()
    spec.save(folder)


def main():
    generator = np.random.default_rng(20)
    models = []
    for size, spread, eos_bonus in [(9, 1.0, 0.5), (12, 2.0, 1.0), (12, 1.0, 0.0), (16, 3.0, 2.0), (20, 1.5, 1.5), (24, 2.5, 0.0)]:
        table = generator.normal(0.0, spread, (size, size))
        table[:, EOS] += eos_bonus
        table[:, :2] -= 4.0
        table = np.round(table, 3).astype(np.float32)
        cases = []
        with tempfile.TemporaryDirectory() as folder:
            build(table, folder)
            translator = ctranslate2.Translator(folder, device="cpu", compute_type="float32", intra_threads=1)
            settings = [
                dict(beam_size=beam, length_penalty=penalty, num_hypotheses=min(best, beam), min_decoding_length=low, max_decoding_length=high)
                for beam in (1, 2, 4)
                for penalty in (0.0, 0.6, 1.0, 2.0)
                for best, low, high in ((1, 1, 24), (4, 1, 14), (2, 3, 7), (3, 0, 12))
            ]
            for setting in settings:
                result = translator.translate_batch([["t3"]], return_scores=True, **setting)[0]
                ids = [[int(token[1:]) if token[0] == "t" else ["<unk>", "<s>", "</s>"].index(token) for token in tokens] for tokens in result.hypotheses]
                cases.append({**setting, "hypotheses": ids, "scores": [round(score, 6) for score in result.scores]})
        models.append({"logits": [[round(float(x), 3) for x in row] for row in table], "cases": cases})
    OUT.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(
        '{"logits": ' + json.dumps(model["logits"]) + ',\n "cases": [\n  ' + ",\n  ".join(map(json.dumps, model["cases"])) + "]}"
        for model in models
    )
    OUT.write_text(
        f'{{"ctranslate2": "{ctranslate2.__version__}", "bos": {BOS}, "eos": {EOS}, "models": [\n{lines}\n]}}\n'
    )
    print(sum(len(model["cases"]) for model in models), "cases,", OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
