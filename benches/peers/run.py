"""Weft against its peers: the same weights and batches, turn by turn in one go, and a table of the ratios.

    python run.py gpt-step lstm          some workloads
    python run.py all                    all of them
    python run.py gpt-step --self-test   PyTorch on both sides: what the measurement itself does

README.md says what is measured and how the two sides talk.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import prepare

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
REST_SECONDS = 0.3  # between turns, so that one side's idle threads have gone to sleep


class PeerError(Exception):
    pass


class Peer:
    """A child process that answers one line of JSON for each line it is sent."""

    def __init__(self, name, command, environment=None):
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | (environment or {})
        )
        self.ready = self.read()
        self.ready["rss_kib"] = self.memory("VmRSS")

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise PeerError(f"{self.name} ended with status {self.process.wait()} instead of an answer")
        try:
            answer = json.loads(line)
        except json.JSONDecodeError:
            raise PeerError(f"{self.name} answered {line!r}, which is not JSON") from None
        if "error" in answer:
            raise PeerError(f"{self.name}: {answer['error']}")
        return answer

    def ask(self, **request):
        start = time.perf_counter()
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.read()
        answer["wall_seconds"] = time.perf_counter() - start
        if answer["seconds"] > answer["wall_seconds"]:
            raise PeerError(f"{self.name} claims {answer['seconds']} s within {answer['wall_seconds']} s")
        return answer

    def memory(self, field):
        """Of this process alone, in KiB: `VmHWM` is the most it ever held. None where there is no /proc."""
        status = Path(f"/proc/{self.process.pid}/status")
        if not status.exists():
            return None
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(lines[field].split()[0])

    def quit(self):
        """Ends the child and returns its peak memory."""
        peak = self.memory("VmHWM")
        self.process.stdin.write('{"quit": true}\n')
        self.process.stdin.close()
        self.process.wait(timeout=30)
        return peak


def sides(workload, paths, options, arguments):
    """The commands of both sides (three for `translate`): Weft first, then the peer it is compared with."""
    common = [
        workload["kind"], "--checkpoint", paths["checkpoint"], "--batches", paths["batches"], "--options", paths[options],
        "--threads", str(arguments.threads),
    ]
    if workload["kind"] == "translate":
        script = [sys.executable, str(HERE / "ctranslate2_peer.py"), *common]
        peers = {"CTranslate2 float32": script, "CTranslate2 int8": [*script, "--compute-type", "int8"]}
    else:
        script = [sys.executable, str(HERE / "torch_peer.py"), *common]
        peers = {"PyTorch": script}
    weft = script if arguments.self_test else [str(arguments.weft), *common]
    return {"weft": weft, **peers}


def start(commands, arguments):
    environment = dict(pair.split("=", 1) for pair in arguments.peer_env)
    return {name: Peer(name, command, None if name == "weft" else environment) for name, command in commands.items()}


def measure(name, workload, arguments):
    folder = arguments.work / name
    paths = prepare.prepare(workload, folder, arguments.data, arguments.checkpoint, arguments.tokenizer)
    record = {
        "workload": name, "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(), "threads": arguments.threads, "configuration": workload,
        "tokens": paths["tokens"], "padding_ratio": paths["padding_ratio"], "peer_env": arguments.peer_env,
    }
    translates = workload["kind"] == "translate"
    dropout = workload.get("options", {}).get("dropout", 0.0)
    if dropout and not translates:
        print(f"{name}: equal work, without dropout", file=sys.stderr)
        peers = start(sides(workload, paths, "options_equal", arguments), arguments)
        record["equal"] = {side: peer.ask(steps=workload["equal_steps"]) for side, peer in peers.items()}
        for peer in peers.values():
            peer.quit()
    peers = start(sides(workload, paths, "options", arguments), arguments)
    record["sides"] = {side: peer.ready for side, peer in peers.items()}
    if not dropout and not translates:
        record["equal"] = {side: peer.ask(steps=workload["equal_steps"]) for side, peer in peers.items()}
    request = {"translate": True} if translates else {"steps": workload["steps_per_round"]}
    rounds = arguments.rounds or workload["rounds"]
    record["rounds"] = []
    for index in range(rounds + 1):
        turn = {}
        for side, peer in peers.items():
            time.sleep(REST_SECONDS)
            turn[side] = peer.ask(**request)
        print(f"{name}: round {index} " + ", ".join(f"{side} {turn[side]['seconds']:.3f} s" for side in turn)
              + (" (warm-up)" if index == 0 else ""), file=sys.stderr)
        if translates and index == 0:
            record["outputs"] = {side: {key: turn[side][key] for key in ("outputs", "scores")} for side in turn}
        for side in turn:
            turn[side] = {key: value for key, value in turn[side].items() if key not in ("outputs", "scores")}
        if index:
            record["rounds"].append(turn)
    for side, peer in peers.items():
        record["sides"][side]["peak_kib"] = peer.quit()
    summarize(record, workload)
    return record


def summarize(record, workload):
    """The numbers of the table, from the raw ones."""
    summary = record["summary"] = {}
    translates = workload["kind"] == "translate"
    first_step = 0 if translates else workload["steps_per_round"]  # after the warm-up
    if not translates and "dropout" in workload.get("options", {}) and not workload["options"]["dropout"]:
        first_step += workload["equal_steps"]
    if workload["kind"] in ("recurrent", "attention"):
        first_step += workload["equal_steps"]
    tokens = record["tokens"]
    for side in record["sides"]:
        rates, step = [], first_step
        for turn in record["rounds"]:
            steps = workload.get("steps_per_round", 1)
            count = tokens[0] if translates else sum(tokens[(step + k) % len(tokens)] for k in range(steps))
            step += steps
            rates.append(count / turn[side]["seconds"])
        summary[side] = {
            "seconds": statistics.median(turn[side]["seconds"] for turn in record["rounds"]),
            "tokens_per_second": statistics.median(rates), "peak_kib": record["sides"][side]["peak_kib"],
        }
        if side != "weft":
            ratios = [turn[side]["seconds"] / turn["weft"]["seconds"] for turn in record["rounds"]]
            summary[side] |= {"ratio": statistics.median(ratios), "ratio_least": min(ratios), "ratio_most": max(ratios)}
            if summary[side]["peak_kib"]:
                summary[side]["memory_ratio"] = summary["weft"]["peak_kib"] / summary[side]["peak_kib"]
            if translates:
                summary[side] |= agreement(record["outputs"]["weft"], record["outputs"][side])
            else:
                summary[side] |= difference(record["equal"]["weft"], record["equal"][side])


def difference(weft, peer):
    """The largest difference of the losses and of the gradients' norms, relative where they are above one."""
    result = {}
    for key in ("losses", "gradient_norms"):
        if len(weft[key]) != len(peer[key]):
            raise PeerError(f"{len(weft[key])} and {len(peer[key])} {key} for the same number of steps")
        result[f"{key}_difference"] = max(abs(a - b) / max(abs(b), 1.0) for a, b in zip(weft[key], peer[key]))
    return result


def agreement(weft, peer):
    pairs = list(zip(weft["outputs"], peer["outputs"], strict=True))
    scores = [abs(a - b) for a, b in zip(weft["scores"], peer["scores"], strict=True)]
    return {
        "same_outputs": sum(a == b for a, b in pairs) / len(pairs), "score_difference": statistics.mean(scores),
        "output_tokens": [sum(map(len, side["outputs"])) for side in (weft, peer)],
    }


def machine():
    """What the numbers depend on; nothing that names the computer."""
    cpu, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                cpu = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = value
    levels = {"avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}
    packages = ("torch", "ctranslate2", "numpy", "tokenizers", "safetensors")
    return {
        "cpu": cpu, "simd": next((level for flag, level in levels.items() if flag in flags.split()), "portable"),
        "cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version(),
        "packages": {package: importlib.metadata.version(package) for package in packages},
        "load_before": os.getloadavg()[0], "commit": commit(),
    }


def commit():
    """The commit the tree stands at, marked where files differ from it; none outside a checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT, capture_output=True,
                                 text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def table(records):
    """The Markdown of some records."""
    lines = [
        "| workload | peer | Weft | peer's time | ratio (least-most) | bar | Weft tokens/s | peak memory: Weft, peer | equal work |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for record in records:
        summary, workload = record["summary"], record["configuration"]
        bar = workload["bar_avx2"] if record["machine"]["simd"] == "AVX2" and "bar_avx2" in workload else workload["bar"]
        for side, numbers in summary.items():
            if side == "weft":
                continue
            if "same_outputs" in numbers:
                equal = f"{numbers['same_outputs']:.1%} of outputs the same, scores off by {numbers['score_difference']:.1e}"
            else:
                equal = (f"losses within {numbers['losses_difference']:.0e}, gradient norms within "
                         f"{numbers['gradient_norms_difference']:.0e}")
            memory = "not compared"  # CTranslate2's child also holds the converter and the trials of its settings
            if numbers["peak_kib"] and workload["kind"] != "translate":
                weft_memory, peer_memory = (
                    f"{record['sides'][one]['peak_kib'] / 1024:.0f} MiB ({record['sides'][one]['rss_kib'] / 1024:.0f} at start)"
                    for one in ("weft", side)
                )
                memory = f"{weft_memory}, {peer_memory}: {numbers['memory_ratio']:.2f}x"
            wanted = "" if "int8" in side else f"{bar:.1f}x"
            lines.append(
                f"| {record['workload']} | {side} | {summary['weft']['seconds']:.3f} s | {numbers['seconds']:.3f} s "
                f"| **{numbers['ratio']:.2f}x** ({numbers['ratio_least']:.2f}-{numbers['ratio_most']:.2f}) | {wanted} "
                f"| {summary['weft']['tokens_per_second']:,.0f} | {memory} | {equal} |"
            )
    for record in records:
        if "equal" in record:
            lines += ["", f"{record['workload']}, the first losses (dropout off) and gradient norms:", "",
                      "| step | " + " | ".join(f"{side} loss | {side} norm" for side in record["equal"]) + " |",
                      "| --- |" + " --- | --- |" * len(record["equal"])]
            for step in range(len(record["equal"]["weft"]["losses"])):
                cells = (f"{side['losses'][step]:.6f} | {side['gradient_norms'][step]:.6f}" for side in record["equal"].values())
                lines.append(f"| {step} | " + " | ".join(cells) + " |")
    lines.append("")
    lines += sorted({
        f"{record['machine']['cpu']}, {record['machine']['simd']}, {record['threads']} threads; "
        + ", ".join(side["version"] for side in record["sides"].values()) + f"; {record['date'][:10]}." for record in records
    })
    return "\n".join(lines)


def save(record, folder):
    """The record as JSON, without the translations themselves (their agreement is in the summary)."""
    record = {key: value for key, value in record.items() if key != "outputs"}
    moment = record["date"][:16].replace(":", "").replace("T", "-")
    path = folder / f"{moment}-{record['workload']}-{record['machine']['simd'].lower()}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def main():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser = argparse.ArgumentParser(description="Weft against its peers; README.md has the details.")
    parser.add_argument("workloads", nargs="*", help="all, or names from the workload file")
    parser.add_argument("--file", type=Path, default=HERE / "workloads.toml", help="the workload file")
    parser.add_argument("--weft", type=Path, default=target / "release" / "weft-peer", help="Weft's side, built")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="the folder with multi30k/")
    parser.add_argument("--checkpoint", type=Path, help="a trained translator, for `translate`")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json for Multi30k instead of the BPE trained here")
    parser.add_argument("--work", type=Path, default=target / "peers", help="where checkpoints and batches are put")
    parser.add_argument("--records", type=Path, default=HERE / "records", help="where the raw numbers are put")
    parser.add_argument("--rounds", type=int, help="instead of each workload's own number")
    parser.add_argument("--peer-env", action="append", default=[], metavar="NAME=VALUE", help="the peer's environment")
    parser.add_argument("--self-test", action="store_true", help="the peer on both sides; records nothing")
    parser.add_argument("--table", type=Path, nargs="+", metavar="RECORD", help="only print the table of these records")
    arguments = parser.parse_args()
    if arguments.table:
        print(table([json.loads(path.read_text()) for path in arguments.table]))
        return
    workloads = tomllib.loads(arguments.file.read_text())
    names = list(workloads) if arguments.workloads == ["all"] else arguments.workloads
    unknown = [name for name in names if name not in workloads]
    if unknown or not names:
        parser.error(f"name some of {', '.join(workloads)}, or all" + (f": unknown {', '.join(unknown)}" if unknown else ""))
    if not arguments.self_test and not arguments.weft.is_file():
        parser.error(f"there is no {arguments.weft}: build it, or name it with --weft")
    records = []
    try:
        for name in names:
            record = measure(name, workloads[name], arguments)
            records.append(record)
            if not arguments.self_test:
                arguments.records.mkdir(parents=True, exist_ok=True)
                print(f"{name}: wrote {save(record, arguments.records)}", file=sys.stderr)
    except (PeerError, prepare.MissingData) as error:
        sys.exit(f"error: {error}")
    print(table(records))


if __name__ == "__main__":
    main()
