//! Every architecture against numbers that PyTorch computed in f64 from the same weights: logits, loss, alignment,
//! every gradient and ten losses of training. `tests/reference/README.md` says what was recorded and how.

mod support;

use support::{check_language_model, check_translator};
use weft_models::gpt::Gpt;
use weft_models::llama::Llama;
use weft_models::mamba::Mamba;
use weft_models::mamba2::Mamba2;
use weft_models::recurrent_lm::RecurrentLm;
use weft_models::rnn_encoder_decoder::RnnEncoderDecoder;
use weft_models::rwkv4::Rwkv4;
use weft_models::rwkv7::Rwkv7;
use weft_models::transformer::Transformer;

#[test]
fn gpt_equals_transformers_gpt2() {
    check_language_model::<Gpt>("gpt");
}

#[test]
fn mamba_equals_transformers_mamba() {
    check_language_model::<Mamba>("mamba");
}

#[test]
fn rwkv4_equals_transformers_rwkv() {
    check_language_model::<Rwkv4>("rwkv4");
}

#[test]
fn mamba2_equals_transformers_mamba2() {
    check_language_model::<Mamba2>("mamba2");
}

#[test]
fn llama_equals_transformers() {
    check_language_model::<Llama>("llama");
}

#[test]
fn rwkv7_equals_its_equations() {
    check_language_model::<Rwkv7>("rwkv7");
}

#[test]
fn recurrent_language_models_equal_torch() {
    for cell in ["rnn", "lstm", "gru"] {
        check_language_model::<RecurrentLm>(&format!("recurrent-lm-{cell}"));
    }
}

#[test]
fn the_post_norm_transformer_equals_transformers_marian() {
    check_translator::<Transformer>("transformer-post-norm");
}

#[test]
fn the_pre_norm_transformer_equals_its_equations() {
    check_translator::<Transformer>("transformer-pre-norm");
}

#[test]
fn attention_networks_equal_the_papers_equations() {
    for case in ["gru-before", "lstm", "rnn-unidirectional"] {
        check_translator::<RnnEncoderDecoder>(&format!("rnn-attention-{case}"));
    }
}

#[test]
fn plain_encoder_decoders_equal_torch() {
    for case in ["gru", "lstm", "rnn-unidirectional"] {
        check_translator::<RnnEncoderDecoder>(&format!("rnn-plain-{case}"));
    }
}
