"""CTranslate2's side of the `translate` workload: the same line protocol as `weft-peer`, see README.md."""

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

import ctranslate2
from safetensors.numpy import load_file

from ctranslate2_model import WeftConverter, words
from prepare import read_sources

# Ways to use the threads: the fastest on this machine is the one measured.
WORKERS = (1, 2)
BATCH_SIZES = (16, 32, 64)


class Peer:
    def __init__(self, checkpoint, batches, options, threads, compute_type):
        self.options = options
        config = json.loads((checkpoint / "config.json").read_text())
        self.names = words(config)
        self.numbers = {name: index for index, name in enumerate(self.names)}
        self.sources = [[self.names[token] for token in row] for row in read_sources(batches)]
        self.folder = tempfile.TemporaryDirectory()
        tensors = load_file(checkpoint / "model.safetensors")
        WeftConverter(config, tensors).convert(self.folder.name, force=True)
        self.settings = []
        for workers, batch_size in itertools.product([w for w in WORKERS if w <= threads], BATCH_SIZES):
            self.open(workers, threads // workers, compute_type)
            self.batch_size = batch_size
            self.translate(self.sources[:64])
            seconds, _ = self.translate(self.sources[: max(256, len(self.sources) // 2)])
            self.settings.append({"workers": workers, "batch_size": batch_size, "seconds": seconds})
        best = min(self.settings, key=lambda setting: setting["seconds"])
        self.open(best["workers"], threads // best["workers"], compute_type)
        self.batch_size = best["batch_size"]

    def open(self, workers, threads, compute_type):
        self.translator = ctranslate2.Translator(
            self.folder.name, device="cpu", compute_type=compute_type, inter_threads=workers, intra_threads=threads
        )

    def translate(self, sources):
        start = time.perf_counter()
        results = self.translator.translate_batch(
            sources, max_batch_size=self.batch_size, beam_size=self.options["beam"], return_scores=True,
            return_end_token=True, length_penalty=self.options["length_penalty"], min_decoding_length=0,
            max_decoding_length=self.options["max_length"], max_input_length=0,
        )
        outputs = [[self.numbers[token] for token in result.hypotheses[0]] for result in results]
        return time.perf_counter() - start, {"outputs": outputs, "scores": [result.scores[0] for result in results]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["translate"])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--batches", required=True)
    parser.add_argument("--options", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--compute-type", default="float32")
    arguments = parser.parse_args()
    options = json.loads(arguments.options.read_text())
    peer = Peer(arguments.checkpoint, arguments.batches, options, arguments.threads, arguments.compute_type)
    answer({"ready": True, "version": f"CTranslate2 {ctranslate2.__version__} {arguments.compute_type}",
            "settings": peer.settings})
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("quit"):
            return
        seconds, results = peer.translate(peer.sources)
        answer({"seconds": seconds} | results)


def answer(values):
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
