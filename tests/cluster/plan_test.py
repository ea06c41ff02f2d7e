"""spillway plan --calibrate at a running deployment, and its prediction of a real run.

A deployment of one process is measured, a load runs against it, and the same trace is planned on the description that came
out. The load is a part of the Azure conversation trace with shorter prompts and answers (or one like it, where the trace is
missing), at the rate that keeps the deployment busy for two fifths of the time.

That everything works and that both see the same requests is checked always, once, on the small demo model. With --judge
(launch/plan-accuracy) it is done ROUNDS times on a model whose steps take milliseconds, on a machine that does nothing else,
and it is an error when the median of the rounds is off by more than 15 % at p50 or 25 % at p90.

  plan_test.py SPILLWAY [--judge] [--rounds N] [--seconds S]
"""
import argparse
import csv
import datetime
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile

from harness import DEMO, SHARED, Deployment, Failure, check

AZURE = os.path.join(SHARED, "traces", "AzureLLMInferenceTrace_conv.csv")
LIMITS = {"p50": 0.15, "p90": 0.25}
BUSY = 0.4
LENGTH_SCALE = 0.08
PROMPT_MAX, OUTPUT_MAX = 320, 96
# what the planner calls it, and the end of what the load generator does
NAMES = {"ttft": "time to first token", "time_per_output_token": "mean time per output token", "end_to_end": "end to end"}


def spillway(binary, *words):
    done = subprocess.run([binary, *words], capture_output=True, text=True, timeout=400)
    check(done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def values(text, bench):
    found = {}
    for line in text.splitlines():
        entry = json.loads(line)
        if entry.get("bench") == bench and isinstance(entry.get("value"), (int, float)):
            found[entry["case"].rsplit(": ", 1)[-1]] = entry["value"]
    return found


def all_requests():
    """(seconds, prompt tokens, output tokens), in order."""
    if not os.path.exists(AZURE):
        print(f"{AZURE} is not there: requests like its are made up")
        dice, now, requests = random.Random(5), 0.0, []
        for _ in range(4000):
            now += dice.expovariate(1)
            requests.append((now, int(dice.lognormvariate(6.6, 1)), int(dice.lognormvariate(5, 0.8))))
        return requests
    with open(AZURE, encoding="utf-8") as file:
        return [(datetime.datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp(), int(row["ContextTokens"]),
                 int(row["GeneratedTokens"])) for row in csv.DictReader(file)]


def write_trace(path, requests, seconds):
    """The requests, shorter, spread over so many seconds."""
    begin, span = requests[0][0], requests[-1][0] - requests[0][0]
    with open(path, "w", encoding="utf-8") as file:
        for at, prompt, output in requests:
            file.write(json.dumps({
                "at_ms": round((at - begin) * seconds * 1000 / span, 3),
                "prompt_tokens": min(max(round(prompt * LENGTH_SCALE), 4), PROMPT_MAX),
                "output_tokens": min(max(round(output * LENGTH_SCALE), 2), OUTPUT_MAX)}) + "\n")


def plan(binary, trace, cluster):
    return values(spillway(binary, "plan", "--trace", trace, "--cluster", cluster, "--json"), "plan")


def make_trace(binary, cluster, path, requests, seconds):
    """As many of the requests as keep the deployment busy for BUSY of that time, as the planner sees it. Their number."""
    low, high = 8, len(requests)
    while high - low > max(1, low // 50):
        count = (low + high) // 2
        write_trace(path, requests[:count], seconds)
        low, high = (count, high) if plan(binary, path, cluster)["utilisation_busy"] < BUSY else (low, count)
    write_trace(path, requests[:low], seconds)
    return low


def round_of(binary, deployment, model, requests, seconds, folder):
    """({(name, part): how far the prediction was off}, requests used)"""
    cluster, trace = os.path.join(folder, "cluster.yaml"), os.path.join(folder, "trace.jsonl")
    spillway(binary, "plan", "--calibrate", "--url", deployment.grpc, "--output", cluster, "--price-per-hour", "0.40")
    with open(cluster, encoding="utf-8") as file:
        text = file.read()
    for key in ("slots: 16", "price_per_hour: 0.4", "pipeline: 1", "context_tokens: 512", "prefill_chunk: 128",
                "patience_ms: 10000", "batch_permille: 100", "cost:"):
        check(key in text, f"{key} is not in\n{text}")
    print(", ".join(line.strip() for line in re.findall(r"^.*(?:_us|_ns|error_p..): .*$", text, re.M)))
    count = make_trace(binary, cluster, trace, requests, seconds)
    real = values(spillway(binary, "bench", "load", "--url", f"http://{deployment.http}/v1", "--api", "completions",
                           "--tokenizer", model, "--ignore-eos", "--trace", trace, "--json"), "load")
    # what the steps of that very load give, for comparison: how much of the error is the machine's
    after = os.path.join(folder, "after.yaml")
    spillway(binary, "plan", "--calibrate", "--no-probe", "--url", deployment.grpc, "--cluster", cluster, "--output", after)
    planned, hindsight = plan(binary, trace, cluster), plan(binary, trace, after)
    check(planned["requests"] == count == real["completed"], f"planned {planned['requests']} and sent {real['completed']} of {count}")
    check(planned["attainment"] == 1, "no goal, and yet not all are good")
    print(f"{count} requests in {seconds} s, busy for {planned['utilisation_busy'] * 100:.0f} %")
    off = {}
    for name, words in NAMES.items():
        for part in LIMITS:
            predicted, measured = planned[f"{name}_{part}"], real[f"{words} {part}"]
            off[name, part] = predicted / measured - 1
            print(f"{words:26} {part}: predicted {predicted:9.3f} ms, measured {measured:9.3f} ms, {off[name, part] * 100:+.1f} % "
                  f"(with what its steps showed: {(hindsight[f'{name}_{part}'] / measured - 1) * 100:+.1f} %)", flush=True)
    return off, count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("spillway")
    parser.add_argument("--judge", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int)
    options = parser.parse_args()
    rounds = options.rounds or (3 if options.judge else 1)
    seconds = options.seconds or (30 if options.judge else 10)
    requests, offs = all_requests(), []
    with tempfile.TemporaryDirectory() as folder:
        model = DEMO
        if options.judge:
            model = os.path.join(folder, "model")
            spillway(options.spillway, "model", "synth", "--like", "small", "--out", model)
        # one core computes, the other one is for doors and the load generator
        words = [options.spillway, "serve", "--model", model, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--slots", "16",
                 "--threads", "1", "--context-tokens", "512", "--prefill-chunk", "128"]
        with Deployment(words) as deployment:
            for _ in range(rounds):
                off, count = round_of(options.spillway, deployment, model, requests, seconds, folder)
                offs.append(off)
                requests = requests[count:]
    bad = []
    for key in offs[0]:
        middle = statistics.median(off[key] for off in offs)
        words = f"{NAMES[key[0]]} {key[1]} is off by {middle * 100:+.1f} %"
        print(f"median of {len(offs)}: {words}")
        if abs(middle) > LIMITS[key[1]]:
            bad.append(f"{words}, more than {LIMITS[key[1]] * 100:.0f} %")
    if options.judge and bad:
        raise Failure("; ".join(bad))
    print("ok" if options.judge else "ok (how far off is judged by launch/plan-accuracy only)")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        print(f"FAILED: {failure}")
        sys.exit(1)
