"""PyTorch's side of a training workload: the same line protocol as `weft-peer`, see README.md."""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

import models


def read_batches(path, prepare):
    """`step.K.NAME` tensors as a list of dictionaries."""
    batches = {}
    for name, values in load_file(path).items():
        _, index, key = name.split(".", 2)
        batches.setdefault(int(index), {})[key] = values
    return [prepare(batches[index]) for index in sorted(batches)]


class Trainer:
    """Runs the step K on batch K modulo their number. Without a learning rate: forward and backward only."""

    def __init__(self, kind, checkpoint, batches, options):
        config, tensors = models.load(checkpoint)
        build = models.KINDS[kind]
        self.model = build(config, tensors, options.get("dropout", 0.0))
        self.batches = read_batches(batches, getattr(build, "prepare", lambda batch: batch))
        self.smoothing = options.get("label_smoothing", 0.0)
        self.max_norm = options.get("max_norm", 0.0)
        self.parameters = list(self.model.parameters())
        self.optimizer = None
        if "learning_rate" in options:
            groups = [
                {"params": [p for p in self.parameters if p.dim() >= 2], "weight_decay": options["weight_decay"]},
                {"params": [p for p in self.parameters if p.dim() < 2], "weight_decay": 0.0},
            ]
            self.optimizer = torch.optim.AdamW(
                groups, lr=options["learning_rate"], betas=(options["beta_1"], options["beta_2"]), eps=options["epsilon"],
                fused=True,
            )
        self.done = 0

    def choose_kernels(self):
        """PyTorch has two implementations of a recurrent layer, and which is faster depends on the machine: take that one.

        Only without an optimizer, where trying a step changes nothing.
        """
        if self.optimizer:
            return None
        seconds = {}
        for enabled in (True, False):
            torch.backends.mkldnn.set_flags(enabled)
            self.step()
            trials = []
            for _ in range(5):
                start = time.perf_counter()
                self.step()
                trials.append(time.perf_counter() - start)
            seconds[enabled] = min(trials)
        torch.backends.mkldnn.set_flags(seconds[True] <= seconds[False])
        self.done = 0
        return [{"onednn": enabled, "seconds": best} for enabled, best in seconds.items()]

    def step(self):
        batch = self.batches[self.done % len(self.batches)]
        self.done += 1
        for parameter in self.parameters:
            parameter.grad = None
        loss = self.model.loss(batch, self.smoothing)
        loss.backward()
        if self.max_norm:
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        else:
            gradients = [p.grad for p in self.parameters] + [leaf.grad for leaf in batch.get("leaves", [])]
            norm = torch.nn.utils.get_total_norm(gradients)
        if self.optimizer:
            self.optimizer.step()
        return loss.item(), norm.item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=models.KINDS)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--batches", required=True)
    parser.add_argument("--options", required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)
    options = json.loads(Path(arguments.options).read_text())
    trainer = Trainer(arguments.kind, arguments.checkpoint, arguments.batches, options)
    answer({
        "ready": True, "simd": torch.backends.cpu.get_cpu_capability().lower(), "version": f"PyTorch {torch.__version__}",
        "settings": trainer.choose_kernels(),
    })
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("quit"):
            return
        start = time.perf_counter()
        losses, norms = zip(*(trainer.step() for _ in range(request["steps"])))
        answer({"seconds": time.perf_counter() - start, "losses": losses, "gradient_norms": norms})


def answer(values):
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
