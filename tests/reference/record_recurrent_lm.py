"""Records `recurrent-lm-rnn/`, `recurrent-lm-lstm/` and `recurrent-lm-gru/` with torch.nn's own layers."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import recording

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentLanguageModel(nn.Module):
    """Embedding, a stack of recurrent layers that starts from zero, a linear head (its weight may be the embedding's)."""

    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["embedding_size"])
        self.rnn = CELLS[config["cell"]](
            config["embedding_size"], config["hidden_size"], config["num_hidden_layers"], batch_first=True
        )
        self.lm_head = nn.Linear(config["hidden_size"], config["vocab_size"])
        if config["tie_word_embeddings"]:
            self.lm_head.weight = self.embed_tokens.weight


def run(model, batch):
    """Logits, and the states [layers, batch, hidden] after each row's own last token."""
    lengths, longest = batch["target_lengths"], batch["input_ids"].shape[1]
    packed = pack_padded_sequence(model.embed_tokens(batch["input_ids"]), lengths, batch_first=True, enforce_sorted=False)
    packed, state = model.rnn(packed)
    hidden, _ = pad_packed_sequence(packed, batch_first=True, total_length=longest)
    logits = recording.masked(model.lm_head(hidden), recording.is_real(lengths, longest), 1)
    if isinstance(state, tuple):
        return {"logits": logits, "state.hidden": state[0], "state.cell": state[1]}
    return {"logits": logits, "state.hidden": state}


def record(cell, seed, **sizes):
    config = {
        "model_type": "weft_recurrent_lm", "cell": cell, "vocab_size": 45, "hidden_size": 19, "embedding_size": 19,
        "num_hidden_layers": 1, "tie_word_embeddings": False, "dropout": 0.1,
    } | sizes
    model = RecurrentLanguageModel(config)
    recording.draw_weights(model, seed)
    tensors = model.state_dict()
    if config["tie_word_embeddings"]:
        del tensors["lm_head.weight"]
    batch, steps = recording.text_batches(seed + 1, config["vocab_size"])
    recording.record_case(f"recurrent-lm-{cell}", config, model, run, batch, steps, smoothing=0.0, tensors=tensors)


def main():
    recording.be_reproducible()
    record("rnn", seed=21, embedding_size=13)
    record("lstm", seed=23, embedding_size=15, num_hidden_layers=2)
    record("gru", seed=25, tie_word_embeddings=True)


if __name__ == "__main__":
    main()
