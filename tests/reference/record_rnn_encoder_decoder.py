"""Records the `rnn-*` folders: recurrent encoder-decoders with and without additive attention.

The equations are those of Bahdanau, Cho, Bengio, arXiv 1409.0473, appendix A, written out step by step; torch.nn's layers
only hold the recurrent weights (and check the encoder where torch has the same cell). The numbers of the equations'
left sides are the paper's.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import recording

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
SMOOTHING = 0.1


def cell_step(kind, gru_reset, x, h, c, weight_ih, weight_hh, bias_ih, bias_hh):
    """One step of one layer in torch's layout; returns the new (hidden, cell), the cell being None but for LSTM.

    GRU with `gru_reset` "after" is torch's: the reset gate multiplies the recurrent product. "before" is the paper's:
    it multiplies the state that goes into the product. The update gate z keeps the old state in both, as torch has it
    (the paper's z is 1 minus ours: the same cell with that gate's weights negated).
    """
    from_input = x @ weight_ih.T + bias_ih
    if kind == "rnn":
        return torch.tanh(from_input + h @ weight_hh.T + bias_hh), None
    if kind == "lstm":
        i, f, g, o = (from_input + h @ weight_hh.T + bias_hh).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    x_r, x_z, x_n = from_input.chunk(3, dim=-1)
    w_r, w_z, w_n = weight_hh.chunk(3, dim=0)
    b_r, b_z, b_n = bias_hh.chunk(3, dim=0)
    r = torch.sigmoid(x_r + h @ w_r.T + b_r)
    z = torch.sigmoid(x_z + h @ w_z.T + b_z)
    if gru_reset == "after":
        n = torch.tanh(x_n + r * (h @ w_n.T + b_n))
    else:
        n = torch.tanh(x_n + (r * h) @ w_n.T + b_n)
    return (1 - z) * n + z * h, None


def layer_weights(rnn, layer, suffix=""):
    return [getattr(rnn, f"{name}_l{layer}{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["embedding_size"])
        self.rnn = CELLS[config["cell"]](
            config["embedding_size"], config["encoder_hidden_size"], config["num_encoder_layers"],
            bidirectional=config["bidirectional"], batch_first=True,
        )


class Decoder(nn.Module):
    def __init__(self, config, context_size):
        super().__init__()
        hidden, encoder_hidden = config["hidden_size"], config["encoder_hidden_size"]
        self.embed_tokens = nn.Embedding(config["decoder_vocab_size"], config["embedding_size"])
        layers = config["num_decoder_layers"]
        attends = config["attention"] == "additive"
        self.rnn = CELLS[config["cell"]](config["embedding_size"] + context_size, hidden, layers)
        directions = 2 if config["bidirectional"] else 1
        initial_size = encoder_hidden if attends else directions * encoder_hidden
        self.initial = nn.ModuleList(nn.Linear(initial_size, hidden) for _ in range(layers))
        if config["cell"] == "lstm" and not attends:
            self.initial_cell = nn.ModuleList(nn.Linear(initial_size, hidden) for _ in range(layers))


class Product(nn.Module):
    """A weight without a bias (a vector where `outputs` is none)."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs if outputs is None else (outputs, inputs)))


class Attention(nn.Module):
    def __init__(self, config, context_size):
        super().__init__()
        self.key = Product(config["attention_size"], context_size)  # U_a
        self.query = Product(config["attention_size"], config["hidden_size"])  # W_a
        self.score = Product(None, config["attention_size"])  # v_a


class Readout(nn.Module):
    def __init__(self, config, context_size):
        super().__init__()
        width = 2 * config["maxout_size"]
        self.state = Product(width, config["hidden_size"])  # U_o
        self.input = Product(width, config["embedding_size"])  # V_o
        if context_size:
            self.context = Product(width, context_size)  # C_o
        self.bias = nn.Parameter(torch.empty(width))


class RnnEncoderDecoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        attends = config["attention"] == "additive"
        context_size = (2 if config["bidirectional"] else 1) * config["encoder_hidden_size"] if attends else 0
        self.encoder = Encoder(config)
        self.decoder = Decoder(config, context_size)
        if attends:
            self.attention = Attention(config, context_size)
        self.readout = Readout(config, context_size)
        self.output = nn.Linear(config["maxout_size"], config["decoder_vocab_size"])

    def encode_direction(self, inputs, lengths, layer, backward):
        """One direction of one layer over [batch, time, features]: every state, and the last (hidden, cell).

        The backward direction starts at each sentence's own end: over padding the state stays the zero it starts as.
        """
        weights = layer_weights(self.encoder.rnn, layer, "_reverse" if backward else "")
        batch, longest, _ = inputs.shape
        h = c = inputs.new_zeros(batch, self.config["encoder_hidden_size"])
        states = [None] * longest
        for t in reversed(range(longest)) if backward else range(longest):
            new_h, new_c = cell_step(self.config["cell"], self.config["gru_reset"], inputs[:, t], h, c, *weights)
            real = (t < lengths)[:, None]
            h = torch.where(real, new_h, h)
            if new_c is not None:
                c = torch.where(real, new_c, c)
            states[t] = torch.where(real, h, torch.zeros_like(h))
        return torch.stack(states, dim=1), (h, c)

    def encode(self, ids, lengths):
        """The annotations h_j of the last layer [batch, time, directions * hidden], and each layer's last states
        (forward, backward)."""
        inputs, finals = self.encoder.embed_tokens(ids), []
        for layer in range(self.config["num_encoder_layers"]):
            states, final = zip(*(
                self.encode_direction(inputs, lengths, layer, backward)
                for backward in ([False, True] if self.config["bidirectional"] else [False])
            ))
            inputs = torch.cat(states, dim=-1)
            finals.append(final)
        return inputs, finals

    def initial_states(self, finals):
        """Each decoder layer's (hidden, cell) before the first word."""
        states = []
        attends = self.config["attention"] == "additive"
        for layer, initial in enumerate(self.decoder.initial):
            if attends:  # s_0 = tanh(W_s h_1 + b_s) from the last layer's last direction, which ends at word 1
                h, _ = finals[-1][-1]
                states.append((torch.tanh(initial(h)), h.new_zeros(h.shape[0], self.config["hidden_size"])))
            else:
                h, c = (torch.cat(parts, dim=-1) for parts in zip(*finals[layer]))
                cell = self.decoder.initial_cell[layer](c) if self.config["cell"] == "lstm" else None
                states.append((torch.tanh(initial(h)), cell))
        return states

    def decode_layers(self, x, states):
        new_states = []
        for layer, (h, c) in enumerate(states):
            weights = layer_weights(self.decoder.rnn, layer)
            x, c = cell_step(self.config["cell"], self.config["gru_reset"], x, h, c, *weights)
            new_states.append((x, c))
        return new_states

    def forward(self, batch):
        """Logits [batch, target, vocabulary] and the alignment [batch, target, source] (none without attention)."""
        source_lengths = batch["source_lengths"]
        annotations, finals = self.encode(batch["source_ids"], source_lengths)
        is_word = recording.is_real(source_lengths, annotations.shape[1])
        states = self.initial_states(finals)
        logits, alignment = [], []
        if self.config["attention"] == "additive":
            keys = annotations @ self.attention.key.weight.T  # U_a h_j
        for t in range(batch["target_in"].shape[1]):
            y = self.decoder.embed_tokens(batch["target_in"][:, t])  # E y_{i-1}
            if self.config["attention"] == "additive":
                s = states[-1][0]  # s_{i-1} of the top layer, for the readout
                # The layer that reads the context asks for it: with several layers, the first.
                query = states[0][0] @ self.attention.query.weight.T  # W_a s_{i-1}
                e = torch.tanh(query[:, None, :] + keys) @ self.attention.score.weight
                weights = torch.softmax(e.masked_fill(~is_word, -torch.inf), dim=-1)
                context = torch.einsum("bj,bjh->bh", weights, annotations)  # c_i
                alignment.append(weights)
                states = self.decode_layers(torch.cat([y, context], dim=-1), states)
                readout = s @ self.readout.state.weight.T + context @ self.readout.context.weight.T
            else:
                states = self.decode_layers(y, states)
                readout = states[-1][0] @ self.readout.state.weight.T
            readout = readout + y @ self.readout.input.weight.T + self.readout.bias
            maxout = readout.unflatten(-1, (-1, 2)).max(dim=-1).values  # over the pairs (2k, 2k + 1)
            logits.append(self.output(maxout))
        return torch.stack(logits, dim=1), torch.stack(alignment, dim=1) if alignment else None


def run(model, batch):
    logits, alignment = model(batch)
    real = recording.is_real(batch["target_lengths"], logits.shape[1])
    outputs = {"logits": recording.masked(logits, real, 1)}
    if alignment is not None:
        outputs["alignment"] = recording.masked(alignment, real, 1)
    return outputs


def check_encoder(model, batch):
    """Our encoder's equations against torch's own packed layers, where torch has the cell."""
    if model.config["cell"] == "gru" and model.config["gru_reset"] == "before":
        return
    model.double()
    ours, finals = model.encode(batch["source_ids"], batch["source_lengths"])
    embedded = model.encoder.embed_tokens(batch["source_ids"])
    packed, last = model.encoder.rnn(
        pack_padded_sequence(embedded, batch["source_lengths"], batch_first=True, enforce_sorted=False)
    )
    theirs, _ = pad_packed_sequence(packed, batch_first=True, total_length=embedded.shape[1])
    last = last[0] if isinstance(last, tuple) else last
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    torch.testing.assert_close(torch.stack([h for layer in finals for h, _ in layer]), last, rtol=0, atol=1e-13)
    model.float()


def record(name, seed, spread=0.5, **changes):
    config = {
        "model_type": "weft_rnn_encoder_decoder", "cell": "gru", "gru_reset": "after", "vocab_size": 41,
        "decoder_vocab_size": 47, "hidden_size": 18, "encoder_hidden_size": 11, "embedding_size": 13,
        "attention_size": 15, "maxout_size": 9, "num_encoder_layers": 1, "num_decoder_layers": 1, "bidirectional": True,
        "attention": "additive", "dropout": 0.1, "pad_token_id": recording.PAD,
        "decoder_start_token_id": recording.START, "eos_token_id": recording.END,
    } | changes
    model = RnnEncoderDecoder(config)
    recording.draw_weights(model, seed, spread)
    batch, steps = recording.translation_batches(seed + 1, config["vocab_size"], config["decoder_vocab_size"])
    check_encoder(model, batch)
    recording.record_case(name, config, model, run, batch, steps, SMOOTHING)


def main():
    recording.be_reproducible()
    record("rnn-attention-gru-before", seed=31, gru_reset="before")
    record("rnn-attention-lstm", seed=33, cell="lstm", hidden_size=14, num_encoder_layers=2, num_decoder_layers=2)
    record("rnn-attention-rnn-unidirectional", seed=35, cell="rnn", bidirectional=False)
    record("rnn-plain-gru", seed=37, attention="none", num_encoder_layers=2, num_decoder_layers=2)
    record("rnn-plain-lstm", seed=39, attention="none", cell="lstm")
    record("rnn-plain-rnn-unidirectional", seed=41, spread=0.3, attention="none", cell="rnn", bidirectional=False,
           num_encoder_layers=2, num_decoder_layers=2)


if __name__ == "__main__":
    main()
