"""What all the recording scripts share: drawing weights, ragged batches, and writing one case's files.

A case is a folder with `config.json`, `model.safetensors` (f32) and `expected.safetensors`. A script hands `record_case`
the model, a function `run(model, batch)` that returns a dictionary with `logits` [batch, time, vocabulary] and whatever
else is worth comparing, and the batches. Everything expected is computed in f64 from the f32 weights.
"""

import copy
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
PAD, START, END = 0, 1, 2  # the special tokens of every translation case
FIRST_WORD = 4  # 3 is the unknown word
LEARNING_RATE, BETAS, EPSILON, WEIGHT_DECAY, MAX_NORM = 1e-3, (0.9, 0.98), 1e-9, 0.01, 1.0


def be_reproducible():
    """One thread and deterministic kernels: the same bytes on every run on the same kind of machine."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def draw_weights(model, seed, spread=0.3):
    """Draws every parameter from a normal distribution, wide enough for gradients that a test can feel.

    Norm weights lie around one. Biases are drawn too: a test must notice when one is left out.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator) * spread
            is_norm = any(part in name for part in ("ln_", "norm"))
            parameter.copy_(noise + 1 if is_norm and name.endswith("weight") else noise)


def padded(rows):
    """Rows of different lengths as one matrix [batch, time], filled up with PAD."""
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows], dtype=torch.int64)


def translation_batch(generator, source_lengths, target_lengths, source_vocabulary, target_vocabulary):
    """Random sentence pairs. Lengths count the closing END; the target is shifted right behind START."""

    def words(count, vocabulary):
        return torch.randint(FIRST_WORD, vocabulary, (count,), generator=generator).tolist()

    sources = [words(length - 1, source_vocabulary) + [END] for length in source_lengths]
    targets = [words(length - 1, target_vocabulary) + [END] for length in target_lengths]
    return {
        "source_ids": padded(sources),
        "source_lengths": torch.tensor(source_lengths),
        "target_in": padded([[START] + target[:-1] for target in targets]),
        "target_out": padded(targets),
        "target_lengths": torch.tensor(target_lengths),
    }


def text_batch(generator, lengths, vocabulary):
    """Random token rows for a language model: every input's target is the token after it."""
    rows = [torch.randint(0, vocabulary, (length + 1,), generator=generator).tolist() for length in lengths]
    return {
        "input_ids": padded([row[:-1] for row in rows]),
        "target_out": padded([row[1:] for row in rows]),
        "target_lengths": torch.tensor(lengths),
    }


def random_lengths(generator, count, longest):
    return torch.randint(1, longest + 1, (count,), generator=generator).tolist()


def translation_batches(seed, source_vocabulary, target_vocabulary):
    """The batch whose gradients are recorded, and ten more for the loss curve.

    The first has a source of length one and a target of length one, in different pairs, and padding on both sides.
    """
    generator = torch.Generator().manual_seed(seed)
    vocabularies = (source_vocabulary, target_vocabulary)
    batch = translation_batch(generator, [5, 1, 7, 3], [4, 6, 1, 7], *vocabularies)
    steps = [
        translation_batch(generator, random_lengths(generator, 3, 7), random_lengths(generator, 3, 7), *vocabularies)
        for _ in range(10)
    ]
    return batch, steps


def text_batches(seed, vocabulary):
    """As `translation_batches`, for language models; one row has length one."""
    generator = torch.Generator().manual_seed(seed)
    batch = text_batch(generator, [9, 1, 12, 5], vocabulary)
    steps = [text_batch(generator, random_lengths(generator, 3, 12), vocabulary) for _ in range(10)]
    return batch, steps


def is_real(lengths, longest):
    """[batch, time], true where there is a token and no padding."""
    return torch.arange(longest)[None, :] < lengths[:, None]


def summed_loss(logits, batch, smoothing):
    """Cross entropy summed over the tokens that are not padding, and their number."""
    real = is_real(batch["target_lengths"], batch["target_out"].shape[1])
    loss = F.cross_entropy(logits[real], batch["target_out"][real], label_smoothing=smoothing, reduction="sum")
    return loss, int(real.sum())


def one_by_one(batch):
    """The sentences of a batch, each a batch of its own without padding."""
    for index, length in enumerate(batch["target_lengths"].tolist()):
        sentence = {}
        for name, values in batch.items():
            row = values[index : index + 1]
            if name == "source_ids":
                row = row[:, : batch["source_lengths"][index]]
            elif values.dim() == 2:
                row = row[:, :length]
            sentence[name] = row
        yield sentence


def outputs_and_gradients(model, run, batches, smoothing):
    """Runs the batches, and the gradient of (sum of all token losses) / (number of all tokens)."""
    model.zero_grad()
    outputs = [run(model, batch) for batch in batches]
    losses, counts = zip(*(summed_loss(output["logits"], batch, smoothing) for output, batch in zip(outputs, batches)))
    loss = sum(losses) / sum(counts)
    loss.backward()
    results = {"loss": loss.detach().clone()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            results[f"gradient.{name}"] = parameter.grad.clone()
    return [{name: value.detach() for name, value in output.items()} for output in outputs], results


def masked(values, real, time_axis):
    """Zeros where the target is padding: those numbers mean nothing."""
    shape = [1] * values.dim()
    shape[0], shape[time_axis] = real.shape
    return torch.where(real.view(shape), values, torch.zeros((), dtype=values.dtype))


def is_matrix(_, parameter):
    return parameter.dim() >= 2


def training_losses(model, run, batches, smoothing, decays, rate):
    """The losses of AdamW steps, each before its update: decay where `decays(name, parameter)`, `rate(name)` times the
    learning rate, the gradient's norm clipped."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    parameters = [parameter for _, parameter in named]
    groups = [
        {"params": [p], "weight_decay": WEIGHT_DECAY if decays(name, p) else 0.0, "lr": rate(name) * LEARNING_RATE}
        for name, p in named
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPSILON)
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        total, count = summed_loss(run(model, batch)["logits"], batch, smoothing)
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        optimizer.step()
        losses.append((total / count).detach())
    return torch.stack(losses)


def worst(got, truth):
    return (got.double() - truth).abs().max() if truth.numel() else torch.zeros((), dtype=torch.float64)


def record_case(
    name, config, model, run, batch, step_batches, smoothing, tensors=None, decays=is_matrix, rate=lambda _: 1.0, variants=()
):
    """Writes the folder of one case. `config` is a dictionary; `tensors` is the file's content where it is not the
    model's own state dictionary; `variants` change how a model computes, not what: each is another sample of what plain
    f32 code loses."""
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    model.eval()  # no dropout
    state = dict(tensors if tensors is not None else model.state_dict())
    save_file({key: value.detach().float().contiguous() for key, value in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    double, single = copy.deepcopy(model).double(), copy.deepcopy(model).float()
    (outputs,), truth = outputs_and_gradients(double, run, [batch], smoothing)
    (plain_outputs,), plain = outputs_and_gradients(single, run, [batch], smoothing)
    truth |= outputs
    plain |= plain_outputs
    errors = {key: worst(plain[key], value) for key, value in truth.items()}

    # The same sentences one at a time: equal but for rounding, and a second sample of what plain f32 code loses.
    sentences = list(one_by_one(batch))
    _, alone = outputs_and_gradients(double, run, sentences, smoothing)
    _, plain_alone = outputs_and_gradients(single, run, sentences, smoothing)
    for key, value in alone.items():
        scale = float(truth[key].abs().max())
        assert worst(value, truth[key]) <= 1e-11 * max(scale, 1.0), f"{name}: {key} depends on the batch"
        errors[key] = torch.maximum(errors[key], worst(plain_alone[key], truth[key]))
    for variant in variants:
        varied = copy.deepcopy(single)
        variant(varied)
        (varied_outputs,), varied = outputs_and_gradients(varied, run, [batch], smoothing)
        for key, value in (varied | varied_outputs).items():
            errors[key] = torch.maximum(errors[key], worst(value, truth[key]))

    truth["losses"] = training_losses(copy.deepcopy(model).double(), run, step_batches, smoothing, decays, rate)
    errors["losses"] = torch.zeros((), dtype=torch.float64)
    for variant in (lambda model: None, *variants):
        varied = copy.deepcopy(model).float()
        variant(varied)
        error = worst(training_losses(varied, run, step_batches, smoothing, decays, rate), truth["losses"])
        errors["losses"] = torch.maximum(errors["losses"], error)

    content = dict(batch) | truth | {f"f32_error.{key}": error for key, error in errors.items()}
    for step, step_batch in enumerate(step_batches):
        content |= {f"step.{step}.{key}": value for key, value in step_batch.items()}
    save_file({key: value.contiguous() for key, value in content.items()}, folder / "expected.safetensors")

    size = sum(path.stat().st_size for path in folder.iterdir())
    losses = ", ".join(f"{loss:.4f}" for loss in truth["losses"].tolist())
    smallest = min((float(v.abs().max()), k) for k, v in truth.items() if k.startswith("gradient."))
    print(f"{name}: loss {float(truth['loss']):.6f}; losses {losses}; {size / 1024:.0f} KiB")
    print(f"  worst f32 error of a gradient {max(float(e) for k, e in errors.items() if k.startswith('gradient.')):.1e};"
          f" smallest gradient {smallest[1]}, at most {smallest[0]:.1e}")
