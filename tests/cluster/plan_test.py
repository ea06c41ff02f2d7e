"""spillway plan --calibrate at a running deployment, and its prediction of a real run.

A deployment of one process is measured, a load runs against it, and the same trace is planned on the description that came
out. That everything works and that both see the same requests is checked always. How far the prediction is off is printed;
it is an error above 15 % at p50 or 25 % at p90 with SPW_TIMED=1, on a machine that does nothing else.
"""
import json
import os
import random
import re
import subprocess
import sys
import tempfile

from harness import DEMO, Deployment, Failure, check

P50_MAX, P90_MAX = 0.15, 0.25
SECONDS = 20
# what the planner calls it, and the end of what the load generator does
NAMES = {"ttft": "time to first token", "time_per_output_token": "mean time per output token", "end_to_end": "end to end"}


def spillway(binary, *words):
    done = subprocess.run([binary, *words], capture_output=True, text=True, timeout=240)
    check(done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def cost_of(path):
    """Coefficients in seconds."""
    units = {"us": 1e-6, "ns": 1e-9}
    with open(path, encoding="utf-8") as file:
        return {name: float(value) * units[unit] for name, unit, value in
                re.findall(r"^ +(fixed|row|decode_context|prefill_context)_(us|ns): ([0-9.]+)$", file.read(), re.M)}


def write_trace(path, cost):
    """About half of what the deployment can do: arrivals of a Poisson process."""
    dice = random.Random(5)
    shapes = [(dice.randint(20, 260), dice.randint(8, 48)) for _ in range(2000)]
    mean = 0.0
    for prompt, output in shapes:
        rows = prompt * cost.get("row", 0) + prompt * prompt / 2 * cost.get("prefill_context", 0)
        step = cost.get("fixed", 0) + cost.get("row", 0) + prompt * cost.get("decode_context", 0)
        mean += (cost.get("fixed", 0) + rows + (output - 1) * step) / len(shapes)
    rate, now, count = 0.5 / mean, 0.0, 0
    with open(path, "w", encoding="utf-8") as file:
        for prompt, output in shapes:
            now += dice.expovariate(rate)
            if now > SECONDS:
                break
            file.write(json.dumps({"at_ms": round(now * 1000, 3), "prompt_tokens": prompt,
                                   "output_tokens": output}) + "\n")
            count += 1
    check(count >= 20, f"only {count} requests: {cost}")
    print(f"{count} requests at {rate:.2f} a second")
    return count


def values(text, bench):
    found = {}
    for line in text.splitlines():
        entry = json.loads(line)
        if entry.get("bench") == bench and isinstance(entry.get("value"), (int, float)):
            found[entry["case"].rsplit(": ", 1)[-1]] = entry["value"]
    return found


def main():
    binary = sys.argv[1]
    timed = os.environ.get("SPW_TIMED") == "1"
    words = [binary, "serve", "--model", DEMO, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--slots", "16",
             "--threads", "1"]
    bad = []
    with tempfile.TemporaryDirectory() as folder, Deployment(words) as deployment:
        cluster, trace = os.path.join(folder, "cluster.yaml"), os.path.join(folder, "trace.jsonl")
        spillway(binary, "plan", "--calibrate", "--url", deployment.grpc, "--output", cluster,
                 "--price-per-hour", "0.40")
        with open(cluster, encoding="utf-8") as file:
            text = file.read()
        for key in ("slots: 16", "price_per_hour: 0.4", "pipeline: 1", "context_tokens: 512", "cost:"):
            check(key in text, f"{key} is not in\n{text}")
        print(text)
        count = write_trace(trace, cost_of(cluster))
        real = values(spillway(binary, "bench", "load", "--url", f"http://{deployment.http}/v1", "--api", "completions",
                               "--tokenizer", DEMO, "--ignore-eos", "--trace", trace, "--json"), "load")
        # what the steps of that very load give, for comparison: how much of the error is the machine's
        after = os.path.join(folder, "after.yaml")
        spillway(binary, "plan", "--calibrate", "--no-probe", "--url", deployment.grpc, "--cluster", cluster, "--output",
                 after)
        plan, hindsight = (values(spillway(binary, "plan", "--trace", trace, "--cluster", path, "--json"), "plan")
                           for path in (cluster, after))
        check(plan["requests"] == count, f"planned {plan['requests']} of {count}")
        check(plan["attainment"] == 1, "no goal, and yet not all are good")
        for name, words_of in NAMES.items():
            for part, limit in (("p50", P50_MAX), ("p90", P90_MAX)):
                predicted, measured = plan[f"{name}_{part}"], real[f"{words_of} {part}"]
                off, later = predicted / measured - 1, hindsight[f"{name}_{part}"] / measured - 1
                print(f"{words_of:26} {part}: predicted {predicted:9.3f} ms, measured {measured:9.3f} ms, {off * 100:+.1f} % "
                      f"(with what its steps showed: {later * 100:+.1f} %)")
                if abs(off) > limit:
                    bad.append(f"{words_of} {part} is off by {off * 100:+.1f} %, more than {limit * 100:.0f} %")
    if timed and bad:
        raise Failure("; ".join(bad))
    print("ok" if timed else "ok (how far off is judged with SPW_TIMED=1 only)")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        print(f"FAILED: {failure}")
        sys.exit(1)
