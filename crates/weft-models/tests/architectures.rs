//! Promises that hold for every architecture, whatever its weights.

use burn::Tensor;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, TensorData};
use weft_decode::{BeamConfig, Sampler, SamplingConfig};
use weft_models::gpt::{Gpt, GptConfig};
use weft_models::llama::{Llama, LlamaConfig};
use weft_models::mamba::{Mamba, MambaConfig};
use weft_models::mamba2::{Mamba2, Mamba2Config};
use weft_models::recurrent_lm::{RecurrentLm, RecurrentLmConfig};
use weft_models::rnn_encoder_decoder::{AttentionKind, RnnEncoderDecoder, RnnEncoderDecoderConfig};
use weft_models::rwkv4::{Rwkv4, Rwkv4Config};
use weft_models::rwkv7::{Rwkv7, Rwkv7Config};
use weft_models::search::{Generation, Session, generate, stream_loss, translate};
use weft_models::transformer::{Transformer, TransformerConfig};
use weft_models::{Architecture, CellKind, LanguageModel, Noise, Sequences, Translator, named_gradients};

/// arXiv 1706.03762, table 3: 65 and 213 million, at the 37,000 entries of section 5.1.
#[test]
fn base_and_big_have_the_papers_parameter_counts() {
    for (preset, millions) in [("base", 65.0), ("big", 213.0)] {
        let config = TransformerConfig::preset(preset, 37_000).unwrap();
        let model = Transformer::new(&config, 1, &Device::flex());
        // The constant that Marian's format adds to the logits is no parameter.
        let count = (model.num_params() - config.vocab_size) as f64 / 1e6;
        assert!((count / millions - 1.0).abs() < 0.035, "{preset} has {count:.1} million, the paper {millions}");
    }
}

#[test]
fn gpt_has_gpt2s_parameter_count() {
    let config = GptConfig { num_layers: 2, ..GptConfig::default() };
    let (embeddings, block, last) = ((50_257 + 1024) * 768, 7_087_872, 2 * 768);
    assert_eq!(Gpt::new(&config, 1, &Device::flex()).num_params(), embeddings + 2 * block + last);
}

#[test]
fn a_ragged_transformer_batch_equals_its_sentences_one_by_one() {
    for normalize_before in [false, true] {
        let mut config = TransformerConfig::preset("tiny", 50).unwrap();
        config.hidden_size = 24;
        config.encoder_intermediate_size = 40;
        config.decoder_intermediate_size = 40;
        config.normalize_before = normalize_before;
        ragged_equals_alone(&Transformer::new(&config, 3, &Device::flex().autodiff()));
    }
}

#[test]
fn a_ragged_recurrent_batch_equals_its_sentences_one_by_one() {
    for cell in [CellKind::Rnn, CellKind::Lstm, CellKind::Gru] {
        for attention in [AttentionKind::Additive, AttentionKind::None] {
            for bidirectional in [false, true] {
                let config = RnnEncoderDecoderConfig {
                    cell,
                    attention,
                    bidirectional,
                    vocab_size: 50,
                    decoder_vocab_size: 50,
                    embedding_size: 9,
                    hidden_size: 14,
                    encoder_hidden_size: 11,
                    attention_size: 7,
                    maxout_size: 6,
                    num_encoder_layers: 2,
                    num_decoder_layers: 2,
                    ..RnnEncoderDecoderConfig::default()
                };
                ragged_equals_alone(&RnnEncoderDecoder::new(&config, 3, &Device::flex().autodiff()));
            }
        }
    }
}

#[test]
fn weights_laid_out_for_decoding_change_no_bit() {
    let device = Device::flex();
    for tie_word_embeddings in [true, false] {
        let mut config = TransformerConfig::preset("tiny", 50).unwrap();
        config.tie_word_embeddings = tie_word_embeddings;
        same_translations(Transformer::new(&config, 3, &device));
        let config = GptConfig {
            vocab_size: 50,
            hidden_size: 24,
            num_layers: 2,
            num_heads: 3,
            tie_word_embeddings,
            ..GptConfig::default()
        };
        same_steps(Gpt::new(&config, 3, &device));
        let config = MambaConfig {
            vocab_size: 50,
            hidden_size: 24,
            num_layers: 2,
            tie_word_embeddings,
            ..MambaConfig::default()
        };
        same_steps(Mamba::new(&config, 3, &device));
        let config = Rwkv4Config { tie_word_embeddings, ..small_rwkv4() };
        same_steps(awake(Rwkv4::new(&config, 3, &device)));
        same_steps(Llama::new(&LlamaConfig { tie_word_embeddings, ..small_llama(Some(5), None) }, 3, &device));
        same_steps(Mamba2::new(&Mamba2Config { tie_word_embeddings, ..small_mamba2() }, 3, &device));
    }
    same_steps(rwkv7(&device));
    for cell in [CellKind::Rnn, CellKind::Lstm, CellKind::Gru] {
        let config = RnnEncoderDecoderConfig {
            cell,
            vocab_size: 50,
            decoder_vocab_size: 50,
            embedding_size: 9,
            hidden_size: 14,
            ..RnnEncoderDecoderConfig::default()
        };
        same_translations(RnnEncoderDecoder::new(&config, 3, &device));
        let config =
            RecurrentLmConfig { cell, vocab_size: 50, hidden_size: 20, embedding_size: 20, ..Default::default() };
        same_steps(RecurrentLm::new(&config, 3, &device));
    }
}

fn small_mamba2() -> Mamba2Config {
    Mamba2Config {
        vocab_size: 50,
        hidden_size: 24,
        num_layers: 2,
        num_heads: 6,
        head_dim: 8,
        num_groups: 2,
        state_size: 16,
        ..Mamba2Config::default()
    }
}

#[test]
fn a_sequence_at_once_equals_its_parts_and_its_steps() {
    let device = Device::flex();
    let gpt = GptConfig { vocab_size: 50, hidden_size: 24, num_heads: 3, num_layers: 2, ..GptConfig::default() };
    sequence_equals_parts_and_steps(Gpt::new(&gpt, 3, &device));
    let mamba = MambaConfig { vocab_size: 50, hidden_size: 24, num_layers: 2, ..MambaConfig::default() };
    sequence_equals_parts_and_steps(Mamba::new(&mamba, 3, &device));
    sequence_equals_parts_and_steps(awake(Rwkv4::new(&small_rwkv4(), 3, &device)));
    sequence_equals_parts_and_steps(Mamba2::new(&small_mamba2(), 3, &device));
    sequence_equals_parts_and_steps(rwkv7(&device));
    for (window, pattern) in
        [(None, None), (Some(7), None), (Some(40), Some("fixed:8:3:1")), (None, Some("strided:16:2"))]
    {
        sequence_equals_parts_and_steps(Llama::new(&small_llama(window, pattern), 3, &device));
    }
    let lstm = RecurrentLmConfig { vocab_size: 50, hidden_size: 20, embedding_size: 20, ..Default::default() };
    sequence_equals_parts_and_steps(RecurrentLm::new(&lstm, 3, &device));
}

#[test]
fn a_text_in_pieces_costs_what_it_costs_at_once() {
    let device = Device::flex();
    let gpt = GptConfig { vocab_size: 50, hidden_size: 24, num_heads: 3, num_layers: 2, ..GptConfig::default() };
    pieces_equal_one_forward(Gpt::new(&gpt, 3, &device));
    let mamba = MambaConfig { vocab_size: 50, hidden_size: 24, num_layers: 2, ..MambaConfig::default() };
    pieces_equal_one_forward(Mamba::new(&mamba, 3, &device));
    pieces_equal_one_forward(awake(Rwkv4::new(&small_rwkv4(), 3, &device)));
    pieces_equal_one_forward(Mamba2::new(&small_mamba2(), 3, &device));
    pieces_equal_one_forward(rwkv7(&device));
    for cell in [CellKind::Rnn, CellKind::Lstm, CellKind::Gru] {
        let config =
            RecurrentLmConfig { cell, vocab_size: 50, hidden_size: 20, embedding_size: 20, ..Default::default() };
        pieces_equal_one_forward(RecurrentLm::new(&config, 3, &device));
    }
}

fn pieces_equal_one_forward<M: LanguageModel>(model: M) {
    let tokens: Vec<u32> = (0..700).map(|i| (i * 7 + i / 9) % 50).collect();
    let ids = |tokens: &[u32]| Sequences::new(&[tokens], 0, &Device::flex()).ids;
    let whole = values(model.loss(ids(&tokens[..699]), ids(&tokens[1..]), &mut Noise::none()))[0];
    for piece in [1, 64, 256, 699, 5000] {
        let mut seen = Vec::new();
        let found = stream_loss(&model, &tokens, piece, |count| seen.push(count));
        assert!((found / f64::from(whole) - 1.0).abs() < 1e-5, "pieces of {piece}: {found}, at once {whole}");
        assert!(seen.len() == 699usize.div_ceil(piece) && seen.last() == Some(&699), "{seen:?}");
    }
    let none = [&[][..], &[1]].map(|tokens| stream_loss(&model, tokens, 8, |_| ()));
    assert_eq!(none, [0.0; 2]);
}

fn small_rwkv4() -> Rwkv4Config {
    Rwkv4Config { vocab_size: 50, hidden_size: 24, num_layers: 2, ..Rwkv4Config::default() }
}

/// With weights wide enough that attention is not flat.
fn small_llama(sliding_window: Option<usize>, pattern: Option<&str>) -> LlamaConfig {
    LlamaConfig {
        vocab_size: 50,
        max_positions: 1024,
        hidden_size: 24,
        intermediate_size: 40,
        num_layers: 2,
        num_heads: 6,
        num_kv_heads: 2,
        sliding_window,
        attention_pattern: pattern.map(|pattern| pattern.parse().expect("a pattern")),
        initializer_range: 0.2,
        ..LlamaConfig::default()
    }
}

/// Every matrix a little changed: one that starts at zero hides what it multiplies.
fn awake<M: Module>(model: M) -> M {
    struct Wave;
    impl ModuleMapper for Wave {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let count = param.val().shape().num_elements();
            let wave: Vec<f32> = (0..count).map(|i| 0.3 * (i as f32 * 1.7).sin()).collect();
            let wave =
                |like: &Tensor<D>| Tensor::from_data(TensorData::new(wave.clone(), like.shape()), &like.device());
            if D == 2 { param.map(|weight| weight.clone() + wave(&weight)) } else { param }
        }
    }
    model.map(&mut Wave)
}

fn small_rwkv7() -> Rwkv7Config {
    Rwkv7Config { vocab_size: 50, hidden_size: 24, head_dim: 8, num_layers: 2, ..Rwkv7Config::default() }
}

/// With weights as if it had been trained: at the start its blocks add nothing.
fn rwkv7(device: &Device) -> Rwkv7 {
    let mut drawn = 0;
    Rwkv7::new(&small_rwkv7(), 3, device).map(&mut Moved(&mut drawn))
}

/// Adds a fixed noise to every parameter.
struct Moved<'a>(&'a mut u32);

impl ModuleMapper for Moved<'_> {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        parameter.map(|values| {
            let (shape, device) = (values.dims(), values.device());
            let mut noise = || {
                *self.0 += 1;
                0.3 * (f64::from(*self.0) * 12.9898).sin() as f32
            };
            let count: usize = shape.iter().product();
            let noise: Vec<f32> = (0..count).map(|_| noise()).collect();
            values + Tensor::from_data(TensorData::new(noise, shape), &device)
        })
    }
}

/// At lengths around those at which a kernel's loops begin anew.
fn sequence_equals_parts_and_steps<M: LanguageModel>(model: M) {
    let ids = |tokens: &[u32]| Sequences::new(&[tokens], 0, &Device::flex()).ids;
    for length in [1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1000] {
        let tokens: Vec<u32> = (0..length).map(|i| (i * 7 + i / 9) % 50).collect();
        let whole = values(model.forward(ids(&tokens)));
        let assert_close = |way: &str, got: Vec<f32>| {
            assert_eq!(got.len(), whole.len());
            let off = whole.iter().zip(&got).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
            assert!(off <= 1e-4, "{length} tokens, {way}: off by {off}");
        };
        let mut state = model.start(1);
        let steps = tokens.iter().flat_map(|&token| values(model.step(&[token], &mut state))).collect();
        assert_close("one by one", steps);
        let (first, rest) = tokens.split_at(tokens.len() / 3);
        let parts = [first, &rest[..rest.len().min(2)], &rest[rest.len().min(2)..]];
        let mut state = model.start(1);
        let parts = parts.iter().filter(|part| !part.is_empty());
        assert_close("in parts", parts.flat_map(|part| values(model.read(ids(part), &mut state))).collect());
    }
}

#[test]
fn a_text_goes_on_from_its_state_file() {
    let device = Device::flex();
    let gpt = GptConfig { vocab_size: 50, hidden_size: 24, num_heads: 3, num_layers: 2, ..GptConfig::default() };
    goes_on(Gpt::new(&gpt, 3, &device), Gpt::new(&GptConfig { hidden_size: 27, ..gpt }, 3, &device));
    let mamba = MambaConfig { vocab_size: 50, hidden_size: 24, num_layers: 2, ..MambaConfig::default() };
    goes_on(Mamba::new(&mamba, 3, &device), Mamba::new(&MambaConfig { state_size: 8, ..mamba }, 3, &device));
    let mamba2 = Mamba2Config { state_size: small_mamba2().state_size + 1, ..small_mamba2() };
    goes_on(Mamba2::new(&small_mamba2(), 3, &device), Mamba2::new(&mamba2, 3, &device));
    for window in [None, Some(4)] {
        let llama = small_llama(window, None);
        let other = LlamaConfig { num_kv_heads: 3, ..llama.clone() };
        goes_on(Llama::new(&llama, 3, &device), Llama::new(&other, 3, &device));
    }
    goes_on(rwkv7(&device), Rwkv7::new(&Rwkv7Config { hidden_size: 32, ..small_rwkv7() }, 3, &device));
    let rwkv4 = Rwkv4Config { hidden_size: 30, ..small_rwkv4() };
    goes_on(awake(Rwkv4::new(&small_rwkv4(), 3, &device)), Rwkv4::new(&rwkv4, 3, &device));
    for cell in [CellKind::Rnn, CellKind::Lstm] {
        let config =
            RecurrentLmConfig { cell, vocab_size: 50, hidden_size: 20, embedding_size: 20, ..Default::default() };
        let other = RecurrentLmConfig { hidden_size: 21, embedding_size: 21, ..config.clone() };
        goes_on(RecurrentLm::new(&config, 3, &device), RecurrentLm::new(&other, 3, &device));
    }
}

fn goes_on<M: LanguageModel>(model: M, other: M) {
    let generate = |session: &mut Session<M>, prompt: &[u32], max_tokens| {
        let mut sampler =
            Sampler::new(SamplingConfig { repetition_penalty: 1.3, ..Default::default() }, 7).expect("a valid setting");
        let what = Generation { prompt, max_tokens, stop: None };
        generate(&model, session, &what, &mut sampler, |_| true).expect("finite scores")
    };
    let whole = generate(&mut Session::new(&model), &[4, 5, 6], 20);
    let mut session = Session::new(&model);
    let mut parts = generate(&mut session, &[4, 5, 6], 8);
    let bytes = session.into_bytes(&model, "abc");
    let mut session = Session::from_bytes(&model, "abc", &bytes).expect("its own state");
    assert!(session.has_unread());
    parts.extend(generate(&mut session, &[], 12));
    assert_eq!(parts, whole);

    let refused = |model: &M, hash: &str, bytes: &[u8]| {
        Session::from_bytes(model, hash, bytes).err().expect("no state of it").to_string()
    };
    assert_eq!(refused(&model, "abd", &bytes), "it is the state of another model");
    let misshapen = refused(&other, "abc", &bytes);
    assert!(misshapen.contains("layers.0.") && misshapen.contains(", not ["), "{misshapen}");
    for length in 0..bytes.len() {
        refused(&model, "abc", &bytes[..length]);
    }
    let fresh = Session::new(&model).into_bytes(&model, "abc");
    assert!(!Session::from_bytes(&model, "abc", &fresh).expect("its own state").has_unread());
}

fn same_translations<M: Translator>(model: M) {
    let sources: Vec<Vec<u32>> =
        (1..8).map(|length| (0..length).map(|i| 4 + (i * 7 + length) % 46).collect()).collect();
    let config = BeamConfig::new(3, 12, 3);
    let found = |model: &M| translate(model, &sources, &config).expect("finite scores");
    let plain = found(&model);
    assert_eq!(found(&model.for_decoding()), plain);
}

fn same_steps<M: LanguageModel>(model: M) {
    let steps = |model: &M| {
        let mut state = model.start(2);
        [5, 9, 30].map(|token| values(model.step(&[token, token + 3], &mut state)))
    };
    let plain = steps(&model);
    assert_eq!(steps(&model.for_decoding()), plain);
}

/// Outputs bit for bit; gradients, which are sums over the batch, to rounding.
fn ragged_equals_alone<M: Translator>(model: &M) {
    let device = Device::flex().autodiff();
    let sentence = |length: u32, salt: u32| (0..length).map(|i| 4 + (i * 7 + salt * 5) % 46).collect::<Vec<u32>>();
    let sources: Vec<_> = [3, 1, 9, 5].iter().enumerate().map(|(i, &length)| sentence(length, i as u32)).collect();
    let targets: Vec<_> = [6, 2, 1, 8].iter().enumerate().map(|(i, &length)| sentence(length, 9 + i as u32)).collect();
    let batch = |rows: &[Vec<u32>]| Sequences::new(rows, 0, &device);
    let (source, target) = (batch(&sources), batch(&targets));

    let (logits, alignment) = model.forward(&source, &target);
    let loss = |source: &Sequences, target: &Sequences| model.loss(source, target, target, 0.1, &mut Noise::none());
    let together = named_gradients(model, &loss(&source, &target).backward());
    let mut apart: Vec<Vec<f64>> = together.iter().map(|gradient| vec![0.0; gradient.values.len()]).collect();
    for row in 0..sources.len() {
        let (source, target) = (batch(&sources[row..=row]), batch(&targets[row..=row]));
        let (alone, alone_alignment) = model.forward(&source, &target);
        let time = targets[row].len();
        let of_batch: Tensor<3> = logits.clone().narrow(0, row, 1).narrow(1, 0, time);
        assert_eq!(values(alone), values(of_batch), "logits of row {row}");
        if let (Some(alone), Some(alignment)) = (alone_alignment, &alignment) {
            let of_batch = alignment.clone().narrow(0, row, 1).narrow(1, 0, time).narrow(2, 0, sources[row].len());
            assert_eq!(values(alone), values(of_batch), "alignment of row {row}");
        }
        // By name: a target of one token leaves the upper layers of an attention decoder without a gradient.
        for gradient in named_gradients(model, &loss(&source, &target).backward()) {
            let at = together.iter().position(|other| other.name == gradient.name).expect("the same names");
            apart[at].iter_mut().zip(&gradient.values).for_each(|(sum, &value)| *sum += f64::from(value));
        }
    }
    for (together, apart) in together.iter().zip(&apart) {
        let scale = apart.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
        for (&a, &b) in together.values.iter().zip(apart) {
            assert!((f64::from(a) - b).abs() < 1e-5 * scale, "{}: {a} together, {b} apart", together.name);
        }
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("an f32 tensor")
}
