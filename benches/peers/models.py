"""The models in PyTorch as eager code runs them fastest: fused projections, fused attention, logits of real tokens only."""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn


def load(checkpoint):
    folder = Path(checkpoint)
    return json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")


def attend(q, k, v, batch, heads, mask=None, is_causal=False, dropout=0.0):
    """Fused attention over [batch * time, hidden].

    The models keep rows in two dimensions: over three, F.linear returns a view, and a ReLU in place then costs more than it
    saves.
    """
    q, k, v = (x.view(batch, -1, heads, x.shape[-1] // heads).transpose(1, 2) for x in (q, k, v))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, dropout_p=dropout)
    return attended.transpose(1, 2).flatten(2).flatten(0, 1)


class Weights(nn.Module):
    """Named tensors as parameters; `self[name]` gives one, `self.pair(name)` a weight and its bias."""

    def __init__(self, tensors):
        super().__init__()
        self.names = {name: name.replace(".", "_") for name in tensors}
        for name, tensor in tensors.items():
            self.register_parameter(self.names[name], nn.Parameter(tensor.contiguous()))

    def __getitem__(self, name):
        return getattr(self, self.names[name])

    def pair(self, name):
        return self[f"{name}.weight"], self[f"{name}.bias"]


class Gpt(Weights):
    TURNED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # [in, out] on disk, [out, in] here

    def __init__(self, config, tensors, dropout):
        super().__init__({name: tensor.T if name.endswith(self.TURNED) else tensor for name, tensor in tensors.items()})
        self.config = config
        self.dropout = dropout

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], *self.pair(name), self.config["layer_norm_epsilon"])

    def drop(self, x):
        return F.dropout(x, self.dropout) if self.dropout else x

    def loss(self, batch, smoothing):
        ids = batch["input_ids"]
        x = F.embedding(ids, self["transformer.wte.weight"]) + self["transformer.wpe.weight"][: ids.shape[1]]
        x = self.drop(x).flatten(0, 1)
        for layer in range(self.config["n_layer"]):
            at = f"transformer.h.{layer}"
            q, k, v = F.linear(self.norm(x, f"{at}.ln_1"), *self.pair(f"{at}.attn.c_attn")).chunk(3, dim=-1)
            y = attend(q, k, v, len(ids), self.config["n_head"], is_causal=True, dropout=self.dropout)
            x = x + self.drop(F.linear(y, *self.pair(f"{at}.attn.c_proj")))
            y = F.linear(self.norm(x, f"{at}.ln_2"), *self.pair(f"{at}.mlp.c_fc"))
            x = x + self.drop(F.linear(F.gelu(y, approximate="tanh"), *self.pair(f"{at}.mlp.c_proj")))
        logits = F.linear(self.norm(x, "transformer.ln_f"), self["transformer.wte.weight"])
        return F.cross_entropy(logits, batch["target_out"].flatten(), label_smoothing=smoothing)


class Transformer(Weights):
    """Post-norm with one shared embedding, Marian's tensor names; q, k, v are one product."""

    def __init__(self, config, tensors, dropout):
        tensors = dict(tensors)
        logits_bias = tensors.pop("final_logits_bias")[0]
        for name in [name for name in tensors if ".q_proj." in name]:
            parts = [tensors.pop(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
            if "encoder_attn" in name:
                tensors[name] = parts[0]
                tensors[name.replace("q_proj", "kv_proj")] = torch.cat(parts[1:])
            else:
                tensors[name.replace("q_proj", "qkv_proj")] = torch.cat(parts)
        super().__init__(tensors)
        self.config = config
        self.dropout = dropout
        self.logits_bias = logits_bias if logits_bias.any() else None  # a constant: zeros need not be added
        width = config["d_model"]
        frequency = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        angle = torch.arange(config["max_position_embeddings"], dtype=torch.float64)[:, None] * frequency
        self.positions = torch.cat([angle.sin(), angle.cos()], dim=-1).float()

    def drop(self, x):
        return F.dropout(x, self.dropout) if self.dropout else x

    def embed(self, ids):
        x = F.embedding(ids, self["model.shared.weight"]) * math.sqrt(self.config["d_model"])
        return self.drop(x + self.positions[: ids.shape[1]]).flatten(0, 1)

    def add_norm(self, x, y, name):
        return F.layer_norm(x + self.drop(y), x.shape[-1:], *self.pair(name), 1e-5)

    def layer(self, x, at, batch, heads, mask=None, is_causal=False, source=None, source_mask=None):
        q, k, v = F.linear(x, *self.pair(f"{at}.self_attn.qkv_proj")).chunk(3, dim=-1)
        y = attend(q, k, v, batch, heads, mask, is_causal)
        x = self.add_norm(x, F.linear(y, *self.pair(f"{at}.self_attn.out_proj")), f"{at}.self_attn_layer_norm")
        if source is not None:
            q = F.linear(x, *self.pair(f"{at}.encoder_attn.q_proj"))
            k, v = F.linear(source, *self.pair(f"{at}.encoder_attn.kv_proj")).chunk(2, dim=-1)
            y = attend(q, k, v, batch, heads, source_mask)
            x = self.add_norm(x, F.linear(y, *self.pair(f"{at}.encoder_attn.out_proj")), f"{at}.encoder_attn_layer_norm")
        y = F.relu(F.linear(x, *self.pair(f"{at}.fc1")), inplace=True)
        return self.add_norm(x, F.linear(y, *self.pair(f"{at}.fc2")), f"{at}.final_layer_norm")

    @staticmethod
    def prepare(batch):
        """What a data loader would hand over: the additive mask (none without padding) and where the targets are."""
        longest = batch["source_ids"].shape[1]
        real = torch.arange(longest) < batch["source_lengths"][:, None]
        if not real.all():
            mask = torch.zeros(real.shape).masked_fill_(~real, -torch.inf)
            batch["source_mask"] = mask[:, None, None, :]
        real = torch.arange(batch["target_out"].shape[1]) < batch["target_lengths"][:, None]
        if not real.all():
            batch["target_places"] = real.flatten().nonzero()[:, 0]
            batch["targets"] = batch["target_out"][real]
        else:
            batch["targets"] = batch["target_out"].flatten()
        return batch

    def loss(self, batch, smoothing):
        config, mask, rows = self.config, batch.get("source_mask"), len(batch["source_ids"])
        x = self.embed(batch["source_ids"])
        for layer in range(config["encoder_layers"]):
            x = self.layer(x, f"model.encoder.layers.{layer}", rows, config["encoder_attention_heads"], mask)
        y = self.embed(batch["target_in"])
        for layer in range(config["decoder_layers"]):
            at = f"model.decoder.layers.{layer}"
            y = self.layer(y, at, rows, config["decoder_attention_heads"], None, True, x, mask)
        if "target_places" in batch:
            y = y.index_select(0, batch["target_places"])
        logits = F.linear(y, self["model.shared.weight"], self.logits_bias)
        return F.cross_entropy(logits, batch["targets"], label_smoothing=smoothing)


class RecurrentLayer(nn.Module):
    """One layer over [time, batch, features], torch's faster layout; the loss is the outputs' product with fixed numbers."""

    def __init__(self, config, tensors, dropout):
        super().__init__()
        cell = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[config["cell"]]
        self.layer = cell(config["input_size"], config["hidden_size"])
        self.layer.load_state_dict({name.removeprefix("rnn."): tensor for name, tensor in tensors.items()})

    @staticmethod
    def prepare(batch):
        batch = {name: values.transpose(0, 1).contiguous() for name, values in batch.items()}
        return {"leaves": [batch["inputs"].requires_grad_()], "upstream": batch["upstream"]}

    def loss(self, batch, smoothing):
        batch["leaves"][0].grad = None
        output, _ = self.layer(batch["leaves"][0])
        return (output * batch["upstream"]).sum() / (output.shape[0] * output.shape[1])


class Attention(nn.Module):
    """Causal self-attention without weights, each head's queries, keys and values contiguous; the loss as above."""

    def __init__(self, config, tensors, dropout):
        super().__init__()
        Attention.heads = config["num_heads"]

    @staticmethod
    def prepare(batch):
        def by_heads(x):
            return x.unflatten(2, (Attention.heads, -1)).transpose(1, 2).contiguous()

        leaves = [by_heads(x).requires_grad_() for x in batch["inputs"].chunk(3, dim=2)]
        return {"leaves": leaves, "upstream": by_heads(batch["upstream"])}

    def loss(self, batch, smoothing):
        for leaf in batch["leaves"]:
            leaf.grad = None
        output = F.scaled_dot_product_attention(*batch["leaves"], is_causal=True)
        return (output * batch["upstream"]).sum() / (output.shape[0] * output.shape[2])


class Mamba(nn.Module):
    """transformers' own, on its path in plain PyTorch: the one that a CPU takes."""

    def __init__(self, config, tensors, dropout):
        super().__init__()
        import transformers

        names = {"mamba": ("MambaConfig", "MambaForCausalLM"), "mamba2": ("Mamba2Config", "Mamba2ForCausalLM")}
        config_class, model_class = (getattr(transformers, name) for name in names[config["model_type"]])
        self.model = model_class(config_class(**config))
        missing, unexpected = self.model.load_state_dict(tensors, strict=False)
        assert not unexpected and missing in ([], ["lm_head.weight"]), (missing, unexpected)
        self.model.tie_weights()

    def loss(self, batch, smoothing):
        logits = self.model(input_ids=batch["input_ids"], use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1), batch["target_out"].flatten())


class Rwkv7(Weights):
    """The equations of arXiv 2503.14456, section 4; the state goes from position to position, a few batched products each."""

    def __init__(self, config, tensors, dropout):
        super().__init__(tensors)
        self.config = config

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], *self.pair(name), self.config["norm_eps"])

    def linear(self, x, name):
        return F.linear(x, self[f"{name}.weight"])

    def loss(self, batch, smoothing):
        x, first_values = F.embedding(batch["input_ids"], self["emb.weight"]), None
        x = self.norm(x, "blocks.0.ln0")
        for layer in range(self.config["num_hidden_layers"]):
            at = f"blocks.{layer}"
            change, first_values = self.time_mix(self.norm(x, f"{at}.ln1"), f"{at}.att", first_values)
            x = x + change
            y = self.norm(x, f"{at}.ln2")
            y = F.relu(self.linear(self.shifted(y, before(y), f"{at}.ffn.x_k"), f"{at}.ffn.key")) ** 2
            x = x + self.linear(y, f"{at}.ffn.value")
        logits = self.linear(self.norm(x, "ln_out"), "head")
        return F.cross_entropy(logits.flatten(0, 1), batch["target_out"].flatten())

    def shifted(self, x, before, name):
        return torch.lerp(x, before, self[name])

    def time_mix(self, x, at, first_values):
        size = self.config["head_dim"]
        batch, time, hidden = x.shape
        earlier = before(x)
        mixed = {name: self.shifted(x, earlier, f"{at}.x_{name}") for name in "rwkvag"}
        low_rank = {kind: (self[f"{at}.{kind}1"], self[f"{at}.{kind}2"]) for kind in "wag"}
        r, k, v = (self.linear(mixed[name], f"{at}.{part}") for name, part in zip("rkv", ("receptance", "key", "value")))
        d = self[f"{at}.w0"] + torch.tanh(mixed["w"] @ low_rank["w"][0]) @ low_rank["w"][1]
        w = torch.exp(-math.exp(-0.5) * torch.sigmoid(d))
        if first_values is None:
            first_values = v
        else:
            v = torch.lerp(v, first_values, torch.sigmoid(self[f"{at}.v0"] + mixed["v"] @ self[f"{at}.v1"] @ self[f"{at}.v2"]))
        rate = torch.sigmoid(self[f"{at}.a0"] + mixed["a"] @ low_rank["a"][0] @ low_rank["a"][1])
        g = torch.sigmoid(mixed["g"] @ low_rank["g"][0]) @ low_rank["g"][1]
        kappa = F.normalize((k * self[f"{at}.k_k"]).unflatten(2, (-1, size)), dim=-1).flatten(2)
        k = k * (1 + (rate - 1) * self[f"{at}.k_a"])

        def by_position(x):  # [time, batch * heads, size, 1]
            return x.view(batch, time, -1, size).permute(1, 0, 2, 3).reshape(time, -1, size, 1).unbind()

        state = x.new_zeros(batch * hidden // size, size, size)
        outputs = []
        rows = (r, w, k, v, kappa, kappa * rate)
        for r_t, w_t, k_t, v_t, kappa_t, removed_t in zip(*map(by_position, rows)):
            removed = torch.bmm(state, kappa_t)
            state = state * w_t.mT
            state = torch.baddbmm(state, torch.cat([v_t, -removed], 2), torch.cat([k_t, removed_t], 2).mT)
            outputs.append(torch.bmm(state, r_t))
        o = torch.stack(outputs).view(time, batch, hidden).transpose(0, 1).reshape(batch * time, hidden)
        o = F.group_norm(o, hidden // size, *self.pair(f"{at}.ln_x"), 64e-5).view(batch, time, -1, size)
        r, k, v = (x.view(batch, time, -1, size) for x in (r, k, v))
        o = o + (r * k * self[f"{at}.r_k"]).sum(-1, keepdim=True) * v
        return self.linear(o.reshape(batch, time, hidden) * g, f"{at}.output"), first_values


def before(x):
    """Every position's predecessor, zeros for the first."""
    return F.pad(x, (0, 0, 1, -1))


KINDS = {
    "gpt": Gpt, "mamba": Mamba, "mamba2": Mamba, "rwkv7": Rwkv7, "transformer": Transformer, "recurrent": RecurrentLayer,
    "attention": Attention,
}
