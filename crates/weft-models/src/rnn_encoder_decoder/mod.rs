//! Recurrent encoder-decoder, with and without additive attention.
//! Bahdanau, Cho & Bengio, arXiv 1409.0473, appendix A (attention, maxout readout); Cho et al., arXiv 1406.1078.
//!
//! ```text
//! paper          here                                   shape
//! n, m, n', l    hidden_size, embedding_size, attention_size, maxout_size
//! E              encoder/decoder.embed_tokens           [vocab, m]
//! h_j            encoder outputs                        [batch, source_time, directions * encoder_hidden]
//! s_i            decoder states                         [batch, target_time, n]
//! W_s            decoder.initial.N                      [n, encoder_hidden]
//! W_a, U_a, v_a  attention.query, .key, .score          [n', n], [n', h], [n']
//! C, C_z, C_r    the context's columns of decoder.rnn.weight_ih_l0
//! U_o, V_o, C_o  readout.state, .input, .context        [2l, n], [2l, m], [2l, h]
//! W_o            output                                 [vocab, l]
//! ```
//!
//! The cell may be an RNN, an LSTM or a GRU in torch's layout; `gru_reset: "before"` is the paper's GRU. With
//! attention the readout reads s_(i-1), as the paper prints it; without, it reads s_i.

mod config;

use burn::Tensor;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int};
use weft_kernels::additive_attention::{AttentiveInputs, attentive_recurrence};
use weft_kernels::cross_entropy::cross_entropy;
use weft_kernels::dropout::dropout;
use weft_kernels::embedding::{EmbeddingOptions, embedding};
use weft_kernels::linear::{Activation, Epilogue, WeightLayout, linear};
use weft_kernels::recurrent::{RecurrentState, recurrent};

use crate::config::ConfigError;
use crate::initialise::Initialiser;
use crate::layers::{CellKind, Embedding, Linear, Noise, RecurrentLayer, recurrent_name};
use crate::search::{select_rows, token_column};
use crate::{Architecture, Sequences, Translator};
pub use config::{AttentionKind, GruReset, RnnEncoderDecoderConfig};

/// The model.
#[derive(Module, Debug)]
pub struct RnnEncoderDecoder {
    encoder: Encoder,
    attention: Option<AttentionWeights>,
    decoder: Decoder,
    readout: Readout,
    output: Linear,
    #[module(skip)]
    config: RnnEncoderDecoderConfig,
}

#[derive(Module, Debug)]
struct Encoder {
    embed_tokens: Embedding,
    rnn: Vec<Directions>,
}

#[derive(Module, Debug)]
struct Directions {
    forward: RecurrentLayer,
    reverse: Option<RecurrentLayer>,
}

#[derive(Module, Debug)]
struct AttentionWeights {
    query: Linear,
    key: Linear,
    score: Score,
}

#[derive(Module, Debug)]
struct Score {
    weight: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct Decoder {
    embed_tokens: Embedding,
    rnn: Vec<RecurrentLayer>,
    initial: Vec<Linear>,
    /// An LSTM without attention inherits its cells too.
    initial_cell: Option<Vec<Linear>>,
}

#[derive(Module, Debug)]
struct Readout {
    state: Linear,
    input: Linear,
    context: Option<Linear>,
    bias: Param<Tensor<1>>,
}

/// What the encoder hands over.
struct Encoded {
    /// h_j, `[batch, source_time, annotation]`.
    annotations: Tensor<3>,
    /// Each decoder layer's first state.
    initial: Vec<RecurrentState>,
}

impl RnnEncoderDecoder {
    fn embed(&self, table: &Embedding, ids: Tensor<2, Int>, noise: &mut Noise) -> Tensor<3> {
        let drop = noise.dropout(self.config.dropout);
        embedding(table.weight.val(), ids, EmbeddingOptions { scale: 1.0, positions: None, offset: 0, dropout: drop })
    }

    fn encode_with(&self, source: &Sequences, noise: &mut Noise) -> Encoded {
        let (cell, lengths) = (self.config.cell(), Some(&source.lengths[..]));
        let mut x = self.embed(&self.encoder.embed_tokens, source.ids.clone(), noise);
        let mut last = Vec::new();
        for layer in &self.encoder.rnn {
            let (forward, end) = layer.forward.forward(cell, x.clone(), None, lengths, false);
            let (outputs, states) = match &layer.reverse {
                None => (forward, (end, None)),
                Some(reverse) => {
                    let (backward, start) = reverse.forward(cell, x, None, lengths, true);
                    (Tensor::cat(vec![forward, backward], 2), (end, Some(start)))
                }
            };
            last.push(states);
            x = dropout(outputs, noise.dropout(self.config.dropout));
        }
        let initial = (0..self.config.num_decoder_layers).map(|layer| self.initial_state(layer, &last)).collect();
        Encoded { annotations: x, initial }
    }

    /// s_0 of a decoder layer, from each encoder layer's last states forward and backward.
    fn initial_state(&self, layer: usize, last: &[(RecurrentState, Option<RecurrentState>)]) -> RecurrentState {
        let tanh = |x: Tensor<2>| {
            let epilogue = Epilogue { activation: Activation::Tanh, ..Epilogue::default() };
            self.decoder.initial[layer].forward_with(x, epilogue)
        };
        if self.config.attends() {
            // W_s h_1 of the backward direction, or the end of the only direction; of the last layer.
            let (end, start) = &last[last.len() - 1];
            let hidden = tanh(start.as_ref().unwrap_or(end).hidden.clone());
            let cell = (self.config.cell == CellKind::Lstm).then(|| hidden.zeros_like());
            return RecurrentState { hidden, cell };
        }
        let (end, start) = &last[layer.min(last.len() - 1)];
        let both = |end: &Tensor<2>, start: Option<&Tensor<2>>| match start {
            Some(start) => Tensor::cat(vec![end.clone(), start.clone()], 1),
            None => end.clone(),
        };
        let hidden = tanh(both(&end.hidden, start.as_ref().map(|start| &start.hidden)));
        let cell = self.decoder.initial_cell.as_ref().zip(end.cell.as_ref()).map(|(projections, cell)| {
            let start = start.as_ref().and_then(|start| start.cell.as_ref());
            projections[layer].forward(both(cell, start))
        });
        RecurrentState { hidden, cell }
    }

    fn keys(&self, annotations: &Tensor<3>) -> Option<Tensor<3>> {
        self.attention.as_ref().map(|attention| attention.key.forward(annotations.clone()))
    }

    /// Runs the decoder from `states` (each layer's), which become the last ones. Returns logits
    /// `[rows, time, vocab]` and the weights `[rows, time, source_time]`.
    fn decode(
        &self,
        memory: &Memory,
        ids: Tensor<2, Int>,
        lengths: Option<&[usize]>,
        states: &mut [RecurrentState],
        noise: &mut Noise,
    ) -> (Tensor<3>, Option<Tensor<3>>) {
        let (config, cell) = (&self.config, self.config.cell());
        let embedded = self.embed(&self.decoder.embed_tokens, ids, noise);
        let before_top = states[states.len() - 1].hidden.clone();
        let (mut x, mut context, mut weights) = (embedded.clone(), None, None);
        for (index, layer) in self.decoder.rnn.iter().enumerate() {
            let initial = states[index].clone();
            let (weight_hh, bias_hh) = (layer.weight_hh.val().transpose(), layer.bias_hh.val());
            let (outputs, last) = match (&self.attention, &memory.keys) {
                (Some(attention), Some(keys)) if index == 0 => {
                    // The columns of weight_ih: the embedding's first, then the context's.
                    let weight_ih = layer.weight_ih.val();
                    let (of_input, of_context) = (
                        weight_ih.clone().narrow(1, 0, config.embedding_size),
                        weight_ih.narrow(1, config.embedding_size, config.annotation_size()),
                    );
                    let gates =
                        linear(x, of_input, WeightLayout::OutIn, Some(layer.bias_ih.val()), Epilogue::default());
                    let inputs = AttentiveInputs {
                        gates_x: gates,
                        query_weight: attention.query.weight.val().transpose(),
                        keys: keys.clone(),
                        values: memory.annotations.clone(),
                        score: attention.score.weight.val(),
                        context_weight: of_context.transpose(),
                        weight_hh,
                        bias_hh: Some(bias_hh),
                        initial: Some(initial),
                    };
                    let attended = attentive_recurrence(cell, inputs, Some(&memory.lengths), lengths);
                    context = Some(attended.contexts);
                    weights = Some(attended.weights);
                    (attended.states, attended.last)
                }
                _ => {
                    let input = if index == 0 { x } else { dropout(x, noise.dropout(config.dropout)) };
                    let gates = linear(
                        input,
                        layer.weight_ih.val(),
                        WeightLayout::OutIn,
                        Some(layer.bias_ih.val()),
                        Epilogue::default(),
                    );
                    recurrent(cell, gates, weight_hh, Some(bias_hh), Some(initial), lengths, false)
                }
            };
            x = outputs;
            states[index] = last;
        }
        let state = if config.attends() { shifted(before_top, x) } else { x };
        (self.read_out(state, embedded, context, noise), weights)
    }

    /// t_i = maxout(U_o s + V_o E y + C_o c), then W_o t_i.
    fn read_out(
        &self,
        state: Tensor<3>,
        embedded: Tensor<3>,
        context: Option<Tensor<3>>,
        noise: &mut Noise,
    ) -> Tensor<3> {
        let readout = &self.readout;
        let add = |sum: Tensor<3>| Epilogue { residual: Some(sum), ..Epilogue::default() };
        let mut sum = linear(
            state,
            readout.state.weight.val(),
            WeightLayout::OutIn,
            Some(readout.bias.val()),
            Epilogue::default(),
        );
        sum = readout.input.forward_with(embedded, add(sum));
        if let (Some(projection), Some(context)) = (&readout.context, context) {
            sum = projection.forward_with(context, add(sum));
        }
        let [batch, time, width] = sum.dims();
        let pairs = sum.reshape([batch, time, width / 2, 2]);
        let (even, odd): (Tensor<3>, Tensor<3>) =
            (pairs.clone().narrow(3, 0, 1).squeeze_dim(3), pairs.narrow(3, 1, 1).squeeze_dim(3));
        let maximum = even.clone().mask_where(even.lower(odd.clone()), odd);
        self.output.forward(dropout(maximum, noise.dropout(self.config.dropout)))
    }
}

/// The states before each step: `first` `[batch, hidden]`, then all but the last of `states`.
fn shifted(first: Tensor<2>, states: Tensor<3>) -> Tensor<3> {
    let time = states.dims()[1];
    let first = first.unsqueeze_dim(1);
    if time <= 1 { first } else { Tensor::cat(vec![first, states.narrow(1, 0, time - 1)], 1) }
}

impl Architecture for RnnEncoderDecoder {
    type Config = RnnEncoderDecoderConfig;
    const MODEL_TYPE: &'static str = "weft_rnn_encoder_decoder";

    fn check(config: &RnnEncoderDecoderConfig) -> Result<(), ConfigError> {
        config.check()
    }

    /// As torch: uniform within 1 / sqrt(hidden) in the cells; Glorot elsewhere; embeddings normal with deviation 0.1
    /// and the score v_a small, so that attention starts almost even (the paper draws it at zero).
    fn new(config: &RnnEncoderDecoderConfig, seed: u64, device: &Device) -> Self {
        let init = &mut Initialiser::new(seed, device);
        let (cell, hidden, annotation) = (config.cell(), config.hidden_size, config.annotation_size());
        let table = |vocab: usize, init: &mut Initialiser| Embedding {
            weight: init.normal([vocab, config.embedding_size], 0.1),
        };
        let encoder = Encoder {
            embed_tokens: table(config.vocab_size, init),
            rnn: (0..config.num_encoder_layers)
                .map(|layer| {
                    let inputs = if layer == 0 { config.embedding_size } else { annotation };
                    let forward = RecurrentLayer::new(cell, inputs, config.encoder_hidden_size, init);
                    let reverse = config
                        .bidirectional
                        .then(|| RecurrentLayer::new(cell, inputs, config.encoder_hidden_size, init));
                    Directions { forward, reverse }
                })
                .collect(),
        };
        let attention = config.attends().then(|| AttentionWeights {
            query: Linear::glorot(hidden, config.attention_size, false, init),
            key: Linear::glorot(annotation, config.attention_size, false, init),
            score: Score { weight: init.normal([config.attention_size], (config.attention_size as f64).powf(-0.5)) },
        });
        let of_start = if config.attends() { config.encoder_hidden_size } else { annotation };
        let from_context = if config.attends() { annotation } else { 0 };
        let inherits_cells = !config.attends() && config.cell == CellKind::Lstm;
        let projections = |init: &mut Initialiser| {
            (0..config.num_decoder_layers).map(|_| Linear::glorot(of_start, hidden, true, init)).collect::<Vec<_>>()
        };
        let decoder = Decoder {
            embed_tokens: table(config.decoder_vocab_size, init),
            rnn: (0..config.num_decoder_layers)
                .map(|layer| {
                    let inputs = if layer == 0 { config.embedding_size + from_context } else { hidden };
                    RecurrentLayer::new(cell, inputs, hidden, init)
                })
                .collect(),
            initial: projections(init),
            initial_cell: inherits_cells.then(|| projections(init)),
        };
        let width = 2 * config.maxout_size;
        let readout = Readout {
            state: Linear::glorot(hidden, width, false, init),
            input: Linear::glorot(config.embedding_size, width, false, init),
            context: config.attends().then(|| Linear::glorot(annotation, width, false, init)),
            bias: init.constant([width], 0.0),
        };
        let output = Linear::glorot(config.maxout_size, config.decoder_vocab_size, true, init);
        Self { encoder, attention, decoder, readout, output, config: config.clone() }
    }

    fn config(&self) -> &RnnEncoderDecoderConfig {
        &self.config
    }

    /// Matrices decay, biases and v_a do not.
    fn decays(_: &str, rank: usize) -> bool {
        rank >= 2
    }

    fn stored_names(name: &str) -> Vec<String> {
        vec![recurrent_name(name)]
    }
}

/// The encoded source, as the decoder reads it.
#[derive(Debug, Clone)]
struct Memory {
    annotations: Tensor<3>,
    /// U_a h_j, computed once (appendix A.2.2).
    keys: Option<Tensor<3>>,
    lengths: Vec<usize>,
}

/// The encoded source, repeated for every hypothesis, and each layer's state.
#[derive(Debug, Clone)]
pub struct RnnDecoderState {
    memory: Memory,
    states: Vec<RecurrentState>,
    width: usize,
}

impl Translator for RnnEncoderDecoder {
    type State = RnnDecoderState;

    fn loss(
        &self,
        source: &Sequences,
        target_in: &Sequences,
        target_out: &Sequences,
        label_smoothing: f32,
        noise: &mut Noise,
    ) -> Tensor<1> {
        let Encoded { annotations, mut initial } = self.encode_with(source, noise);
        let memory = Memory { keys: self.keys(&annotations), annotations, lengths: source.lengths.clone() };
        let (logits, _) = self.decode(&memory, target_in.ids.clone(), Some(&target_in.lengths), &mut initial, noise);
        let [batch, time, vocab] = logits.dims();
        let targets = target_out.ids.clone().reshape([batch * time]);
        let ignore = Some(self.config.pad_token_id as i32);
        cross_entropy(logits.reshape([batch * time, vocab]), targets, label_smoothing, ignore)
    }

    fn forward(&self, source: &Sequences, target_in: &Sequences) -> (Tensor<3>, Option<Tensor<3>>) {
        let Encoded { annotations, mut initial } = self.encode_with(source, &mut Noise::none());
        let memory = Memory { keys: self.keys(&annotations), annotations, lengths: source.lengths.clone() };
        self.decode(&memory, target_in.ids.clone(), Some(&target_in.lengths), &mut initial, &mut Noise::none())
    }

    fn encode(&self, source: &Sequences, width: usize) -> RnnDecoderState {
        let Encoded { annotations, initial } = self.encode_with(source, &mut Noise::none());
        let rows: Vec<usize> = (0..source.batch()).flat_map(|sentence| vec![sentence; width]).collect();
        let memory = Memory {
            keys: self.keys(&annotations).map(|keys| select_rows(keys, &rows)),
            annotations: select_rows(annotations, &rows),
            lengths: rows.iter().map(|&row| source.lengths[row]).collect(),
        };
        let states = initial.into_iter().map(|state| select_state(state, &rows)).collect();
        RnnDecoderState { memory, states, width }
    }

    fn step(&self, tokens: &[u32], state: &mut RnnDecoderState) -> Tensor<2> {
        let ids = token_column(tokens, &state.memory.annotations.device());
        let (logits, _) = self.decode(&state.memory, ids, None, &mut state.states, &mut Noise::none());
        logits.squeeze_dim(1)
    }

    fn reorder(&self, state: &mut RnnDecoderState, sentences: &[usize], parents: &[usize]) {
        let width = state.width;
        let row = |(i, &parent): (usize, &usize)| sentences[i / width] * width + parent;
        let rows: Vec<usize> = parents.iter().enumerate().map(row).collect();
        for layer in &mut state.states {
            *layer = select_state(layer.clone(), &rows);
        }
        // The rows of a sentence share its source: only sentences that are done change it.
        if rows.len() != state.memory.lengths.len() {
            let memory = &mut state.memory;
            memory.annotations = select_rows(memory.annotations.clone(), &rows);
            memory.keys = memory.keys.take().map(|keys| select_rows(keys, &rows));
            memory.lengths = rows.iter().map(|&row| memory.lengths[row]).collect();
        }
    }

    fn start_token(&self) -> u32 {
        self.config.decoder_start_token_id
    }

    fn max_target_length(&self) -> Option<usize> {
        None
    }

    fn max_source_length(&self) -> Option<usize> {
        None
    }
}

fn select_state(state: RecurrentState, rows: &[usize]) -> RecurrentState {
    RecurrentState { hidden: select_rows(state.hidden, rows), cell: state.cell.map(|cell| select_rows(cell, rows)) }
}
