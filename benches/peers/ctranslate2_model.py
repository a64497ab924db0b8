"""Our post-norm and pre-norm Transformers as CTranslate2 models, from the tensors of a checkpoint.

CTranslate2's own Marian converter starts from a zero embedding and drops the last token as padding; our models start from a
real token and keep every row. Tokens keep their numbers: token 17 is the word `w17`.
"""

import math

import numpy
from ctranslate2.converters.converter import Converter
from ctranslate2.specs import common_spec, transformer_spec


def words(config):
    """CTranslate2's names of the tokens. It wants an unknown word: any token that is not special will do."""
    names = [f"w{index}" for index in range(config.get("decoder_vocab_size") or config["vocab_size"])]
    names[config["eos_token_id"]] = "</s>"
    names[config["decoder_start_token_id"]] = "<s>"
    special = {config["eos_token_id"], config["decoder_start_token_id"], config["pad_token_id"]}
    names[next(index for index in range(len(names)) if index not in special)] = "<unk>"
    return names


def sinusoids(longest, width):
    """Marian's positions: sines in the first half, cosines in the second."""
    frequency = 10000.0 ** (-numpy.arange(0, width, 2) / width)
    angle = numpy.arange(longest)[:, None] * frequency
    return numpy.concatenate([numpy.sin(angle), numpy.cos(angle)], axis=-1).astype(numpy.float32)


class WeftConverter(Converter):
    def __init__(self, config, tensors):
        """`config` is config.json's dictionary, `tensors` numpy arrays by name."""
        self.config = config
        self.tensors = tensors

    def _load(self):
        config, tensors = self.config, self.tensors
        pre_norm = config.get("normalize_before", False)
        spec = transformer_spec.TransformerSpec.from_config(
            (config["encoder_layers"], config["decoder_layers"]), config["encoder_attention_heads"], pre_norm=pre_norm,
            activation=common_spec.Activation.RELU,
        )
        spec.decoder.num_heads = numpy.dtype("int16").type(config["decoder_attention_heads"])
        source, target = (
            tensors.get("model.shared.weight", tensors.get(f"model.{part}.embed_tokens.weight"))
            for part in ("encoder", "decoder")
        )
        spec.encoder.embeddings[0].weight = source
        spec.decoder.embeddings.weight = target
        spec.decoder.projection.weight = tensors.get("lm_head.weight", target)
        spec.decoder.projection.bias = tensors["final_logits_bias"][0]
        positions = sinusoids(config["max_position_embeddings"], config["d_model"])
        for name, part in (("encoder", spec.encoder), ("decoder", spec.decoder)):
            part.scale_embeddings = math.sqrt(config["d_model"]) if config["scale_embedding"] else 1.0
            part.position_encodings.encodings = positions
            if pre_norm:
                self.fill_norm(part.layer_norm, f"model.{name}.layer_norm")
            for index, layer in enumerate(part.layer):
                self.fill_layer(layer, f"model.{name}.layers.{index}", attends_source=name == "decoder")
        # One list of names for both sides, as tokens keep their numbers.
        spec.register_source_vocabulary(words(config | {"decoder_vocab_size": len(source)}))
        spec.register_target_vocabulary(words(config | {"decoder_vocab_size": len(target)}))
        spec.config.decoder_start_token = "<s>"
        return spec

    def fill_layer(self, layer, at, attends_source):
        self.fill(layer.self_attention.linear[0], *(f"{at}.self_attn.{part}_proj" for part in "qkv"))
        self.fill(layer.self_attention.linear[1], f"{at}.self_attn.out_proj")
        self.fill_norm(layer.self_attention.layer_norm, f"{at}.self_attn_layer_norm")
        if attends_source:
            self.fill(layer.attention.linear[0], f"{at}.encoder_attn.q_proj")
            self.fill(layer.attention.linear[1], *(f"{at}.encoder_attn.{part}_proj" for part in "kv"))
            self.fill(layer.attention.linear[2], f"{at}.encoder_attn.out_proj")
            self.fill_norm(layer.attention.layer_norm, f"{at}.encoder_attn_layer_norm")
        self.fill(layer.ffn.linear_0, f"{at}.fc1")
        self.fill(layer.ffn.linear_1, f"{at}.fc2")
        self.fill_norm(layer.ffn.layer_norm, f"{at}.final_layer_norm")

    def fill(self, spec, *names):
        """One product from one weight and bias, or from several stacked along the outputs."""
        spec.weight = numpy.concatenate([self.tensors[f"{name}.weight"] for name in names])
        spec.bias = numpy.concatenate([self.tensors[f"{name}.bias"] for name in names])

    def fill_norm(self, spec, name):
        spec.gamma, spec.beta = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
