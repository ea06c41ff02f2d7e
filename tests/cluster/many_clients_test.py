"""200 streaming clients at once, HTTP and gRPC mixed: each gets its own right answer, to the last bit.

usage: many_clients_test.py SPILLWAY

Every answer is compared with the answer to the same request alone: ids and the bits of the log-probabilities.
Afterwards memory, requests and KV blocks are back at their level.
"""
import concurrent.futures
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
import harness  # noqa: E402
from harness import DEMO, Deployment, check, serve_words  # noqa: E402

BINARY = sys.argv[1]
CLIENTS = 200
TOKENS = 24
SUBJECTS = ["cat", "dog", "fox", "owl", "bear", "hen", "mouse", "rabbit", "dolphin", "horse"]
PLACES = ["river", "hill", "forest", "garden", "lake", "farm", "beach", "town", "castle", "bridge"]


def prompt_of(client):
    return (f"Tell me a story about a {SUBJECTS[client % 10]} and a {PLACES[client // 10 % 10]}."
            + (" Please." if client >= 100 else ""))


def over_http(deployment, client):
    ids, logprobs = [], []
    body = {"messages": [{"role": "user", "content": prompt_of(client)}], "max_tokens": TOKENS,
            "temperature": 0, "logprobs": True, "ignore_eos": True, "return_token_ids": True}
    for event in deployment.stream("/v1/chat/completions", body):
        for choice in event["choices"]:
            ids += choice.get("token_ids") or []
            logprobs += [entry["logprob"] for entry in (choice.get("logprobs") or {}).get("content") or []]
    return ids, [as_float32(value) for value in logprobs]


def over_grpc(deployment, client):
    ids, logprobs = [], []
    words = [BINARY, "submit", "--to", deployment.grpc, "--temperature", "0", "--ignore-eos", "--json",
             "--max-tokens", str(TOKENS), prompt_of(client)]
    result = subprocess.run(words, capture_output=True, text=True, timeout=300)
    check(result.returncode == 0, f"submit: {result.stderr}")
    for line in result.stdout.splitlines():
        for token in json.loads(line).get("tokens", []):
            ids.append(token["id"])
            logprobs.append(token["logprob"])
    return ids, [as_float32(value) for value in logprobs]


def as_float32(value):
    """Both APIs print enough digits of the 32 bits; compare these bits."""
    import struct
    return struct.pack("<f", value)


def ask(deployment, client):
    return over_http(deployment, client) if client % 2 else over_grpc(deployment, client)


def memory_kib(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as file:
            total += next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    return total


def descriptors(pids):
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def settle(deployment):
    """Wait until nothing runs; the state."""
    for _ in range(100):
        state = deployment.status()
        if state["requests"]["running"] == 0 and state["kv"]["blocks_used"] == 0:
            return state
        time.sleep(0.05)
    raise harness.Failure(f"not idle: {state}")


def run(words):
    with Deployment(words) as deployment:
        # one round first, so that pools and caches of the process have their size
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda client: ask(deployment, client), range(CLIENTS)))
        pids = sorted({rank["pid"] for rank in settle(deployment)["ranks"]})
        alone = [ask(deployment, client) for client in range(CLIENTS)]
        before, files = memory_kib(pids), descriptors(pids)
        begin = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            together = list(pool.map(lambda client: ask(deployment, client), range(CLIENTS)))
        seconds = time.monotonic() - begin
        for client in range(CLIENTS):
            check(len(alone[client][0]) == TOKENS, f"client {client}: {len(alone[client][0])} tokens")
            check(together[client] == alone[client], f"client {client}: another answer than alone")
        check(len({tuple(answer[0]) for answer in alone}) > 50, "the answers are all alike")
        state = settle(deployment)
        check(state["requests"]["waiting"] == 0, f"still waiting: {state['requests']}")
        after = memory_kib(pids)
        check(after <= before * 1.05 + 2048, f"memory grew from {before} to {after} KiB")
        time.sleep(0.5)
        check(descriptors(pids) <= files + 2, f"descriptors: {files} before, {descriptors(pids)} after")
        print(f"{CLIENTS} clients x {TOKENS} tokens in {seconds:.2f} s; "
              f"resident {before} KiB before, {after} KiB after", flush=True)


def in_one_process():
    run(serve_words(BINARY, DEMO))


def on_six_ranks():
    run(serve_words(BINARY, DEMO, 2, 2, many=True))


if __name__ == "__main__":
    harness.main([in_one_process, on_six_ranks])
