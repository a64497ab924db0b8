//! Every architecture starts and learns as its page under `docs/architectures` says: how its parameters are drawn, which
//! of them decay, and which have a learning rate of their own.

use burn::tensor::Device;
use weft_models::gpt::{Gpt, GptConfig};
use weft_models::llama::{Llama, LlamaConfig};
use weft_models::mamba::{Mamba, MambaConfig};
use weft_models::mamba2::{Mamba2, Mamba2Config};
use weft_models::recurrent_lm::{RecurrentLm, RecurrentLmConfig};
use weft_models::rnn_encoder_decoder::{RnnEncoderDecoder, RnnEncoderDecoderConfig};
use weft_models::rwkv4::{Rwkv4, Rwkv4Config};
use weft_models::rwkv7::{Rwkv7, Rwkv7Config};
use weft_models::transformer::{Transformer, TransformerConfig};
use weft_models::{Architecture, CellKind, named_parameters};

/// How a parameter is drawn.
enum Drawn {
    /// All alike.
    Constant(f64),
    /// With mean 0 and this deviation.
    Normal(f64),
    /// Up to this on both sides of 0.
    Uniform(f64),
    /// Uniform with variance 2 / (inputs + outputs).
    Glorot,
    /// In a way of its own, which other tests look at.
    Otherwise,
}
use Drawn::{Constant, Glorot, Normal, Otherwise, Uniform};

const VOCABULARY: usize = 500;
const HIDDEN: usize = 64;
/// hidden^-1/2.
const ROOT: f64 = 0.125;

/// `expected`: the end of a parameter's name, how it is drawn, whether it decays, and its part of the learning rate.
fn check<M: Architecture>(config: &M::Config, expected: &[(&str, Drawn, bool, f64)]) {
    let parameters = named_parameters(&M::new(config, 1, &Device::flex()));
    for (end, drawn, decays, factor) in expected {
        let found: Vec<_> = parameters.iter().filter(|parameter| parameter.name.ends_with(end)).collect();
        let names = || parameters.iter().map(|parameter| parameter.name.as_str()).collect::<Vec<_>>();
        assert!(!found.is_empty(), "{}: there is no {end} in {:?}", M::MODEL_TYPE, names());
        for parameter in found {
            let name = &parameter.name;
            assert_eq!(M::decays(name, parameter.shape.len()), *decays, "{name}: whether it decays");
            assert_eq!(M::learning_rate_factor(name), *factor, "{name}: its learning rate");
            let (count, values) =
                (parameter.values.len() as f64, parameter.values.iter().map(|&value| f64::from(value)));
            let mean = values.clone().sum::<f64>() / count;
            let deviation = (values.clone().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
            let largest = values.clone().map(f64::abs).fold(0.0, f64::max);
            let deviates = |wanted: f64| {
                // Five standard errors of the mean, and of the deviation of a normal sample.
                assert!(mean.abs() < 5.0 * wanted / count.sqrt(), "{name}: mean {mean}");
                let error = 5.0 / (2.0 * count).sqrt();
                assert!((deviation / wanted - 1.0).abs() < error, "{name}: deviation {deviation}, not {wanted}");
            };
            let spreads = |limit: f64| {
                deviates(limit / 3f64.sqrt());
                assert!(largest <= limit * (1.0 + 1e-6), "{name}: up to {largest}, not {limit}");
            };
            match drawn {
                Constant(wanted) => {
                    assert!(parameter.values.iter().all(|&value| f64::from(value) == *wanted), "{name}")
                }
                Normal(wanted) => deviates(*wanted),
                Uniform(limit) => spreads(*limit),
                Glorot => spreads((6.0 / parameter.shape.iter().sum::<usize>() as f64).sqrt()),
                Otherwise => {}
            }
        }
    }
}

#[test]
fn attention() {
    let config =
        GptConfig { vocab_size: VOCABULARY, hidden_size: HIDDEN, num_layers: 2, num_heads: 4, ..GptConfig::default() };
    check::<Gpt>(
        &config,
        &[
            ("wte.weight", Normal(0.02), true, 1.0),
            ("wpe.weight", Normal(0.02), true, 1.0),
            ("c_attn.weight", Normal(0.02), true, 1.0),
            ("c_fc.weight", Normal(0.02), true, 1.0),
            ("c_proj.weight", Normal(0.01), true, 1.0),
            ("c_proj.bias", Constant(0.0), false, 1.0),
            ("ln_1.weight", Constant(1.0), false, 1.0),
        ],
    );
    let config = LlamaConfig {
        vocab_size: VOCABULARY,
        hidden_size: HIDDEN,
        intermediate_size: 160,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: None,
        ..LlamaConfig::default()
    };
    check::<Llama>(
        &config,
        &[
            ("embed_tokens.weight", Normal(0.02), true, 1.0),
            ("_proj.weight", Normal(0.02), true, 1.0),
            ("norm.weight", Constant(1.0), false, 1.0),
        ],
    );
    let config = TransformerConfig {
        vocab_size: VOCABULARY,
        hidden_size: HIDDEN,
        encoder_intermediate_size: 160,
        decoder_intermediate_size: 160,
        num_encoder_layers: 2,
        num_decoder_layers: 2,
        num_encoder_heads: 4,
        num_decoder_heads: 4,
        ..TransformerConfig::default()
    };
    check::<Transformer>(
        &config,
        &[
            ("shared.weight", Normal(ROOT), true, 1.0),
            ("out_proj.weight", Glorot, true, 1.0),
            ("fc1.weight", Glorot, true, 1.0),
            ("fc2.weight", Glorot, true, 1.0),
            ("fc1.bias", Constant(0.0), false, 1.0),
            ("final_layer_norm.weight", Constant(1.0), false, 1.0),
        ],
    );
}

#[test]
fn recurrent_networks() {
    let config = RecurrentLmConfig {
        cell: CellKind::Gru,
        vocab_size: VOCABULARY,
        hidden_size: HIDDEN,
        embedding_size: HIDDEN,
        ..RecurrentLmConfig::default()
    };
    check::<RecurrentLm>(
        &config,
        &[
            ("embed_tokens.weight", Normal(ROOT), true, 1.0),
            ("weight_ih", Uniform(ROOT), true, 1.0),
            ("weight_hh", Uniform(ROOT), true, 1.0),
            ("bias_hh", Constant(0.0), false, 1.0),
        ],
    );
    let config = RnnEncoderDecoderConfig {
        vocab_size: VOCABULARY,
        decoder_vocab_size: VOCABULARY,
        embedding_size: 48,
        hidden_size: HIDDEN,
        encoder_hidden_size: HIDDEN,
        attention_size: 96,
        maxout_size: 56,
        ..RnnEncoderDecoderConfig::default()
    };
    check::<RnnEncoderDecoder>(
        &config,
        &[
            ("embed_tokens.weight", Normal(0.1), true, 1.0),
            ("weight_hh", Uniform(ROOT), true, 1.0),
            ("attention.query.weight", Glorot, true, 1.0),
            ("attention.score.weight", Normal(96f64.powf(-0.5)), false, 1.0),
            ("output.weight", Glorot, true, 1.0),
        ],
    );
}

#[test]
fn state_spaces() {
    let config = MambaConfig { vocab_size: VOCABULARY, hidden_size: HIDDEN, num_layers: 2, ..MambaConfig::default() };
    let inner = (2 * HIDDEN) as f64;
    check::<Mamba>(
        &config,
        &[
            ("embeddings.weight", Normal(0.02), true, 1.0),
            ("in_proj.weight", Uniform(ROOT), true, 1.0),
            ("conv1d.weight", Uniform(0.5), true, 1.0),
            ("conv1d.bias", Uniform(0.5), false, 1.0),
            ("x_proj.weight", Uniform(inner.powf(-0.5)), true, 1.0),
            ("out_proj.weight", Uniform((2.0 * inner).powf(-0.5)), true, 1.0),
            ("a_log", Otherwise, false, 1.0),
            ("mixer.d", Constant(1.0), false, 1.0),
            ("dt_proj.bias", Otherwise, false, 1.0),
        ],
    );
    let config = Mamba2Config {
        vocab_size: VOCABULARY,
        hidden_size: HIDDEN,
        num_layers: 2,
        num_heads: 4,
        head_dim: 32,
        num_groups: 1,
        state_size: 16,
        ..Mamba2Config::default()
    };
    check::<Mamba2>(
        &config,
        &[
            ("embeddings.weight", Normal(0.02), true, 1.0),
            ("in_proj.weight", Uniform(ROOT), true, 1.0),
            ("conv1d.weight", Uniform(0.5), true, 1.0),
            ("out_proj.weight", Uniform((2.0 * inner).powf(-0.5)), true, 1.0),
            ("a_log", Otherwise, false, 1.0),
            ("dt_bias", Otherwise, false, 1.0),
            ("mixer.d", Constant(1.0), false, 1.0),
        ],
    );
}

#[test]
fn linear_attention() {
    let config = Rwkv4Config { vocab_size: VOCABULARY, hidden_size: HIDDEN, num_layers: 2, ..Rwkv4Config::default() };
    check::<Rwkv4>(
        &config,
        &[
            ("embeddings.weight", Uniform(1e-4), true, 1.0),
            ("attention.value.weight", Normal(ROOT), true, 1.0),
            ("attention.key.weight", Constant(0.0), true, 1.0),
            ("attention.output.weight", Constant(0.0), true, 1.0),
            ("feed_forward.key.weight", Normal(ROOT), true, 1.0),
            ("feed_forward.value.weight", Constant(0.0), true, 1.0),
            ("time_decay", Otherwise, false, 2.0),
            ("time_first", Otherwise, false, 3.0),
        ],
    );
    let config = Rwkv7Config {
        vocab_size: VOCABULARY,
        hidden_size: HIDDEN,
        num_layers: 2,
        head_dim: 16,
        ..Rwkv7Config::default()
    };
    check::<Rwkv7>(
        &config,
        &[
            ("emb.weight", Uniform(1e-4), true, 1.0),
            ("head.weight", Normal(0.5 * ROOT), true, 1.0),
            ("att.receptance.weight", Uniform(0.5 * ROOT), true, 1.0),
            ("att.value.weight", Uniform(0.5 * ROOT), true, 1.0),
            ("att.key.weight", Uniform(0.05 * ROOT), true, 1.0),
            ("att.output.weight", Constant(0.0), true, 1.0),
            ("ffn.key.weight", Uniform(0.5 * ROOT), true, 1.0),
            ("ffn.value.weight", Constant(0.0), true, 1.0),
            ("att.w0", Otherwise, false, 2.0),
            ("att.w1", Constant(0.0), false, 1.0),
            ("att.a0", Otherwise, false, 1.0),
        ],
    );
}
