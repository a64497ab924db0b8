"""Checkpoints and batches for the workloads, the same for both sides, deterministic, without PyTorch."""

import gzip
import json

import numpy
from safetensors.numpy import load_file, save_file

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


class MissingData(Exception):
    pass


def prepare(workload, folder, data_folder, checkpoint=None, tokenizer=None):
    """Writes `checkpoint/`, `batches.safetensors` and `options.json` into `folder`; returns the paths as strings, and the
    numbers of real tokens of each batch."""
    folder.mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(7)
    kind = workload["kind"]
    config = dict(workload.get("model", {}))
    if kind == "translate":
        path, batches = checkpoint, [source_sentences(checkpoint, data_folder, workload["data"]["sentences"])]
    else:
        path = folder / "checkpoint"
        path.mkdir(exist_ok=True)
        if kind == "gpt":
            config = gpt_config(config)
            tensors = gpt_tensors(config, random)
            batches = text_batches(workload["data"], config["vocab_size"], random)
        elif kind in LANGUAGE_MODELS:
            config, tensors = LANGUAGE_MODELS[kind](config, random)
            batches = text_batches(workload["data"], config["vocab_size"], random)
        elif kind == "transformer":
            if workload["data"]["source"] == "multi30k":
                batches, vocabulary = multi30k_batches(workload["data"], data_folder, path, tokenizer, random)
                config["vocab_size"] = vocabulary
            else:
                batches = sentence_batches(workload["data"], config["vocab_size"], random)
            config = transformer_config(config)
            tensors = transformer_tensors(config, random)
        elif kind == "attention":
            config["model_type"] = "weft_attention"
            tensors = {}
            batches = layer_batches(workload["data"], 3 * config["hidden_size"], config["hidden_size"], random)
        else:
            config["model_type"] = "weft_recurrent_layer"
            tensors = recurrent_tensors(config, random)
            batches = layer_batches(workload["data"], config["input_size"], config["hidden_size"], random)
        (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file({name: tensor.astype(numpy.float32) for name, tensor in tensors.items()}, path / "model.safetensors")
    flat = {f"step.{index}.{name}": values for index, batch in enumerate(batches) for name, values in batch.items()}
    save_file(flat, folder / "batches.safetensors")
    (folder / "options.json").write_text(json.dumps(workload.get("options", {}), indent=2) + "\n")
    exact = dict(workload.get("options", {}), dropout=0.0)
    (folder / "options-equal.json").write_text(json.dumps(exact, indent=2) + "\n")
    return {
        "checkpoint": str(path), "batches": str(folder / "batches.safetensors"),
        "options": str(folder / "options.json"), "options_equal": str(folder / "options-equal.json"),
        "tokens": [real_tokens(batch) for batch in batches], "padding_ratio": padding_ratio(batches),
    }


def real_tokens(batch):
    if "inputs" in batch:
        return int(batch["inputs"].shape[0] * batch["inputs"].shape[1])
    return int(sum(batch[name].sum() for name in ("source_lengths", "target_lengths") if name in batch))


def padding_ratio(batches):
    """The share of padding in the padded matrices."""
    cells = sum(batch[name].size for batch in batches for name in ("source_ids", "target_in", "input_ids") if name in batch)
    return 1 - sum(map(real_tokens, batches)) / cells if cells else 0.0


def gpt_config(sizes):
    return {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new", "n_inner": None,
        "layer_norm_epsilon": 1e-5, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "tie_word_embeddings": True,
        "bos_token_id": 0, "eos_token_id": 0,
    } | sizes


def gpt_tensors(config, random):
    hidden, inner = config["n_embd"], config["n_inner"] or 4 * config["n_embd"]
    tensors = {
        "transformer.wte.weight": random.normal(0, 0.02, (config["vocab_size"], hidden)),
        "transformer.wpe.weight": random.normal(0, 0.02, (config["n_positions"], hidden)),
    }

    def norm(name):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = numpy.ones(hidden), numpy.zeros(hidden)

    def product(name, inputs, outputs):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = random.normal(0, 0.02, (inputs, outputs)), numpy.zeros(outputs)

    for layer in range(config["n_layer"]):
        at = f"transformer.h.{layer}"
        norm(f"{at}.ln_1")
        product(f"{at}.attn.c_attn", hidden, 3 * hidden)
        product(f"{at}.attn.c_proj", hidden, hidden)
        norm(f"{at}.ln_2")
        product(f"{at}.mlp.c_fc", hidden, inner)
        product(f"{at}.mlp.c_proj", inner, hidden)
    norm("transformer.ln_f")
    return tensors


def mamba(sizes, random):
    config = {"model_type": "mamba", "hidden_act": "silu", "tie_word_embeddings": True, "residual_in_fp32": False} | sizes
    hidden, inner, states = config["hidden_size"], 2 * config["hidden_size"], config["state_size"]
    rank, width = config["time_step_rank"], config["conv_kernel"]
    tensors = {"backbone.embeddings.weight": random.normal(0, 0.02, (config["vocab_size"], hidden))}
    for layer in range(config["num_hidden_layers"]):
        at = f"backbone.layers.{layer}"
        tensors |= {
            f"{at}.norm.weight": numpy.ones(hidden),
            f"{at}.mixer.in_proj.weight": uniform(random, hidden, (2 * inner, hidden)),
            f"{at}.mixer.conv1d.weight": uniform(random, width, (inner, 1, width)),
            f"{at}.mixer.conv1d.bias": uniform(random, width, (inner,)),
            f"{at}.mixer.x_proj.weight": uniform(random, inner, (rank + 2 * states, inner)),
            f"{at}.mixer.dt_proj.weight": uniform(random, rank, (inner, rank)),
            f"{at}.mixer.dt_proj.bias": steps(random, inner),
            f"{at}.mixer.A_log": numpy.log(numpy.tile(numpy.arange(1, states + 1), (inner, 1))),
            f"{at}.mixer.D": numpy.ones(inner),
            f"{at}.mixer.out_proj.weight": uniform(random, inner, (hidden, inner)),
        }
    return config, tensors | {"backbone.norm_f.weight": numpy.ones(hidden)}


def mamba2(sizes, random):
    config = {"model_type": "mamba2", "hidden_act": "silu", "tie_word_embeddings": True, "residual_in_fp32": False,
              "expand": 2, "n_groups": 1} | sizes
    hidden, inner, heads = config["hidden_size"], 2 * config["hidden_size"], config["num_heads"]
    convolved, width = inner + 2 * config["state_size"], config["conv_kernel"]
    tensors = {"backbone.embeddings.weight": random.normal(0, 0.02, (config["vocab_size"], hidden))}
    for layer in range(config["num_hidden_layers"]):
        at = f"backbone.layers.{layer}"
        tensors |= {
            f"{at}.norm.weight": numpy.ones(hidden),
            f"{at}.mixer.in_proj.weight": uniform(random, hidden, (inner + convolved + heads, hidden)),
            f"{at}.mixer.conv1d.weight": uniform(random, width, (convolved, 1, width)),
            f"{at}.mixer.conv1d.bias": uniform(random, width, (convolved,)),
            f"{at}.mixer.dt_bias": steps(random, heads),
            f"{at}.mixer.A_log": numpy.log(random.uniform(1, 16, heads)),
            f"{at}.mixer.D": numpy.ones(heads),
            f"{at}.mixer.norm.weight": numpy.ones(inner),
            f"{at}.mixer.out_proj.weight": uniform(random, inner, (hidden, inner)),
        }
    return config, tensors | {"backbone.norm_f.weight": numpy.ones(hidden)}


def rwkv7(sizes, random):
    """Drawn, not as the authors start it: zeros would hide what they multiply."""
    config = {"model_type": "rwkv7", "norm_eps": 1e-5} | sizes
    hidden, inner, size = config["hidden_size"], 4 * config["hidden_size"], config["head_dim"]
    ranks = {"w": "decay", "a": "a", "v": "v", "g": "gate"}
    tensors = {
        "emb.weight": random.normal(0, 0.02, (config["vocab_size"], hidden)),
        "head.weight": uniform(random, hidden, (config["vocab_size"], hidden)),
    }

    def norm(name):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = numpy.ones(hidden), numpy.zeros(hidden)

    norm("blocks.0.ln0")
    norm("ln_out")
    for layer in range(config["num_hidden_layers"]):
        at = f"blocks.{layer}"
        for name in ("ln1", "ln2", "att.ln_x"):
            norm(f"{at}.{name}")
        for name in ("att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g", "att.k_k", "att.k_a", "ffn.x_k"):
            tensors[f"{at}.{name}"] = random.uniform(0.2, 0.8, (1, 1, hidden))
        for kind, name in ranks.items():
            if kind == "v" and layer == 0:
                continue
            rank = config[f"{name}_low_rank_dim"]
            if kind != "g":
                tensors[f"{at}.att.{kind}0"] = random.uniform(-1, 1, (1, 1, hidden))
            tensors[f"{at}.att.{kind}1"] = uniform(random, hidden, (hidden, rank))
            tensors[f"{at}.att.{kind}2"] = uniform(random, rank, (rank, hidden))
        tensors[f"{at}.att.r_k"] = random.normal(0, 0.1, (hidden // size, size))
        for name in ("receptance", "key", "value", "output"):
            tensors[f"{at}.att.{name}.weight"] = uniform(random, hidden, (hidden, hidden))
        tensors[f"{at}.ffn.key.weight"] = uniform(random, hidden, (inner, hidden))
        tensors[f"{at}.ffn.value.weight"] = uniform(random, inner, (hidden, inner))
    return config, tensors


LANGUAGE_MODELS = {"mamba": mamba, "mamba2": mamba2, "rwkv7": rwkv7}


def uniform(random, inputs, shape):
    return random.uniform(-(inputs**-0.5), inputs**-0.5, shape)


def steps(random, count):
    """The inverse of softplus of steps from 0.001 to 0.1, evenly over their magnitudes."""
    step = numpy.exp(random.uniform(numpy.log(1e-3), numpy.log(0.1), count))
    return step + numpy.log(-numpy.expm1(-step))


def transformer_config(sizes):
    return {
        "model_type": "marian", "architectures": ["MarianMTModel"], "activation_function": "relu", "dropout": 0.1,
        "attention_dropout": 0.0, "activation_dropout": 0.0, "scale_embedding": True, "static_position_embeddings": True,
        "share_encoder_decoder_embeddings": True, "tie_word_embeddings": True, "normalize_before": False,
        "decoder_vocab_size": sizes["vocab_size"], "pad_token_id": PAD, "bos_token_id": START,
        "decoder_start_token_id": START, "eos_token_id": END, "forced_eos_token_id": None,
    } | sizes


def transformer_tensors(config, random):
    hidden, vocabulary = config["d_model"], config["vocab_size"]
    tensors = {
        "model.shared.weight": random.normal(0, hidden**-0.5, (vocabulary, hidden)),
        "final_logits_bias": numpy.zeros((1, vocabulary)),
    }

    def norm(name):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = numpy.ones(hidden), numpy.zeros(hidden)

    def product(name, inputs, outputs):
        bound = (6 / (inputs + outputs)) ** 0.5
        tensors[f"{name}.weight"] = random.uniform(-bound, bound, (outputs, inputs))
        tensors[f"{name}.bias"] = numpy.zeros(outputs)

    for part in ("encoder", "decoder"):
        for layer in range(config[f"{part}_layers"]):
            at = f"model.{part}.layers.{layer}"
            for attention in ("self_attn", "encoder_attn") if part == "decoder" else ("self_attn",):
                for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    product(f"{at}.{attention}.{projection}", hidden, hidden)
                norm(f"{at}.{attention}_layer_norm")
            product(f"{at}.fc1", hidden, config[f"{part}_ffn_dim"])
            product(f"{at}.fc2", config[f"{part}_ffn_dim"], hidden)
            norm(f"{at}.final_layer_norm")
    return tensors


def recurrent_tensors(config, random):
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[config["cell"]]
    bound = config["hidden_size"] ** -0.5
    shapes = {
        "rnn.weight_ih_l0": (gates * config["hidden_size"], config["input_size"]),
        "rnn.weight_hh_l0": (gates * config["hidden_size"], config["hidden_size"]),
        "rnn.bias_ih_l0": (gates * config["hidden_size"],), "rnn.bias_hh_l0": (gates * config["hidden_size"],),
    }
    return {name: random.uniform(-bound, bound, shape) for name, shape in shapes.items()}


def layer_batches(data, inputs, outputs, random):
    """Inputs of a layer in the middle of a network, and the gradient that reaches its outputs."""
    shape = (data["batch"], data["time"])
    return [
        {
            "inputs": random.normal(0, 1, (*shape, inputs)).astype(numpy.float32),
            "upstream": random.normal(0, 1, (*shape, outputs)).astype(numpy.float32),
        }
        for _ in range(data["batches"])
    ]


def words(random, count, vocabulary):
    """Token ids with the frequencies of words: the id of rank r about once in r."""
    ranks = numpy.exp(random.uniform(0, numpy.log(vocabulary - len(SPECIAL)), count))
    return (ranks.astype(numpy.int64) - 1 + len(SPECIAL)).clip(max=vocabulary - 1)


def text_batches(data, vocabulary, random):
    batches = []
    for _ in range(data["batches"]):
        rows = words(random, data["batch"] * (data["time"] + 1), vocabulary).reshape(data["batch"], -1)
        batches.append({
            "input_ids": rows[:, :-1].copy(), "target_out": rows[:, 1:].copy(),
            "target_lengths": numpy.full(data["batch"], data["time"], numpy.int64),
        })
    return batches


def pad(rows):
    longest = max(map(len, rows))
    return numpy.array([list(row) + [PAD] * (longest - len(row)) for row in rows], numpy.int64)


def translation_batch(pairs):
    sources, targets = zip(*pairs)
    return {
        "source_ids": pad(sources), "source_lengths": numpy.array([len(row) for row in sources], numpy.int64),
        "target_in": pad([[START, *row[:-1]] for row in targets]), "target_out": pad(targets),
        "target_lengths": numpy.array([len(row) for row in targets], numpy.int64),
    }


def bucketed(pairs, budget, count, random):
    """Batches of pairs of about the same lengths: rows times the longest side stay within `budget`; `count` of them."""
    pairs = sorted(pairs, key=lambda pair: (len(pair[1]), len(pair[0])))
    batches, current, longest = [], [], 0
    for pair in pairs:
        longest_with = max(longest, len(pair[0]), len(pair[1]))
        if current and longest_with * (len(current) + 1) > budget:
            batches.append(current)
            current, longest_with = [], max(len(pair[0]), len(pair[1]))
        current.append(pair)
        longest = longest_with
    chosen = random.permutation(len(batches))[:count]
    return [translation_batch(batches[index]) for index in chosen]


def sentence_batches(data, vocabulary, random):
    """Made-up pairs: lengths spread as in news text around `mean_length`, both sides about as long."""
    pairs = []
    wanted = data["batches"] * data["tokens"] // data["mean_length"] * 3
    for _ in range(wanted):
        length = random.lognormal(numpy.log(data["mean_length"]) - 0.125, 0.5)
        source, target = (int(numpy.clip(length * random.normal(1, 0.1), 2, 100)) for _ in range(2))
        pairs.append(([*words(random, source, vocabulary), END], [*words(random, target, vocabulary), END]))
    return bucketed(pairs, data["tokens"], data["batches"], random)


def read_lines(data_folder, name):
    path = data_folder / "multi30k" / f"{name}.gz"
    if not path.is_file():
        raise MissingData(f"cannot find {path}: give the folder that holds multi30k/train.en.gz with --data")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n") for line in lines]


def multi30k_batches(data, data_folder, checkpoint, tokenizer_path, random):
    """Real pairs through one BPE vocabulary for both languages, made here or given."""
    from tokenizers import Tokenizer

    english, german = read_lines(data_folder, "train.en"), read_lines(data_folder, "train.de")
    tokenizer = Tokenizer.from_file(str(tokenizer_path)) if tokenizer_path else train_bpe(english + german, data["vocabulary"])
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    sides = ([[*encoding.ids, END] for encoding in tokenizer.encode_batch(text, add_special_tokens=False)]
             for text in (english, german))
    return bucketed(zip(*sides), data["tokens"], data["batches"], random), tokenizer.get_vocab_size()


def train_bpe(lines, size):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[UNKNOWN]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def source_sentences(checkpoint, data_folder, count):
    """The first sentences of the validation set through the checkpoint's own tokenizer."""
    from tokenizers import Tokenizer

    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if checkpoint is None or not (checkpoint / name).is_file():
            raise MissingData(f"`translate` needs a trained checkpoint with {name}: give its folder with --checkpoint")
    config = json.loads((checkpoint / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    sources = [
        [*encoding.ids, config["eos_token_id"]]
        for encoding in tokenizer.encode_batch(read_lines(data_folder, "val.en")[:count], add_special_tokens=False)
    ]
    return {
        "source_ids": pad(sources), "source_lengths": numpy.array([len(row) for row in sources], numpy.int64),
    }


def read_sources(path):
    """The sentences of a translate workload's batches file as lists of ids."""
    tensors = load_file(path)
    rows, lengths = tensors["step.0.source_ids"].tolist(), tensors["step.0.source_lengths"].tolist()
    return [row[:length] for row, length in zip(rows, lengths)]
