"""Prefix hit rate over a day's part of real conversations, in the planner's simulator.

The Mooncake conversation trace, lengths and arrivals as they are, on one replica that is fast enough. What an unbounded cache
of the same block size would find is counted here from the trace alone. With room for the working set (all distinct full blocks
of prompts) the replica has to find 95 % of that; with a tenth and with three tenths of it, eviction by cost has to find
strictly more than eviction of the least recently used.

  hit_rate_test.py SPILLWAY [--block-tokens 16] [--expect-failure]
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

from harness import SHARED, Failure, check

TRACE = os.path.join(SHARED, "traces", "conversation_trace.jsonl")
TRACE_BLOCK = 512
LEAST = 0.95
CLUSTER = """
slots: 256
step_tokens: 8192
prefill_chunk: 8192
block_tokens: {block}
kv_blocks: {blocks}
context_tokens: 200000
queue: 20000
evict: {evict}
cost: {{fixed_us: 1000, row_us: 5, prefill_context_ns: 0.18}}
"""


def unbounded(block):
    """Distinct full blocks of all prompts, and the part of all prompt tokens that is in blocks seen before."""
    seen, found, tokens = set(), 0, 0
    with open(TRACE, encoding="utf-8") as file:
        for line in file:
            request = json.loads(line)
            tokens += request["input_length"]
            for i in range(request["input_length"] // block):
                first, last = i * block // TRACE_BLOCK, (i * block + block - 1) // TRACE_BLOCK
                check(first == last, "a block lies in two of the trace's")
                key = request["hash_ids"][first] * (TRACE_BLOCK // block) + i * block % TRACE_BLOCK // block
                found += key in seen
                seen.add(key)
    return len(seen), found * block / tokens


def hit_rate(binary, block, blocks, evict):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(CLUSTER.format(block=block, blocks=blocks, evict=evict))
        file.flush()
        words = [binary, "plan", "--trace", TRACE, "--cluster", file.name, "--json"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    check(done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stderr[-2000:]}")
    found = {}
    for line in done.stdout.splitlines():
        entry = json.loads(line)
        found[entry["case"].rsplit(": ", 1)[-1]] = entry["value"]
    check(found["refused"] == 0 and found["preempted"] == 0, "the replica is too small for the trace")
    return found["prefix_hit_rate"]


def run(binary, block):
    working_set, ideal = unbounded(block)
    print(f"blocks of {block} tokens, {working_set} distinct; an unbounded cache finds {ideal:.4f} of the prompt tokens")
    bad = []
    rate = hit_rate(binary, block, working_set, "cost")
    print(f"100 % of the working set: {rate:.4f}, {rate / ideal * 100:.1f} % of unbounded")
    check(rate <= ideal + 1e-9, "more was found than is there")
    if rate < LEAST * ideal:
        bad.append(f"with room for all, {rate:.4f} is less than {LEAST} of {ideal:.4f}")
    for percent in (30, 10):
        cost, lru = (hit_rate(binary, block, working_set * percent // 100, evict) for evict in ("cost", "lru"))
        print(f"{percent:3} % of the working set: by cost {cost:.4f}, LRU {lru:.4f}: {(cost / lru - 1) * 100:+.2f} %")
        if cost <= lru:
            bad.append(f"at {percent} % of the working set eviction by cost finds {cost:.4f}, LRU {lru:.4f}")
    check(not bad, "; ".join(bad))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("spillway")
    parser.add_argument("--block-tokens", type=int, default=TRACE_BLOCK)
    parser.add_argument("--expect-failure", action="store_true")
    options = parser.parse_args()
    if not os.path.exists(TRACE):
        print(f"skipped: {TRACE} is not there")
        sys.exit(77)
    try:
        run(options.spillway, options.block_tokens)
    except Failure as failure:
        print(f"{'as expected' if options.expect_failure else 'FAILED'}: {failure}")
        sys.exit(0 if options.expect_failure and "of the working set eviction" in str(failure) else 1)
    if options.expect_failure:
        print("FAILED: the planted bug was not seen")
    sys.exit(1 if options.expect_failure else 0)


if __name__ == "__main__":
    main()
