"""A prefix that many requests share is computed once, counted in rows; and whatever becomes of its blocks - kept,
swapped out and back, computed again, read from disk after a restart - no bit of an answer changes (C1, C4).

usage: prefix_test.py SPILLWAY [--expect-failure] [NAME ...]

--expect-failure is for a build that takes a wrong block: the test succeeds if different answers are found.
"""
import concurrent.futures
import glob
import os
import random
import re
import signal
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(__file__))
import harness  # noqa: E402
from harness import DEMO, Deployment, Failure, check, serve_words, spillway_pids  # noqa: E402

ARGUMENTS = [word for word in sys.argv[2:] if not word.startswith("--")]
BINARY = sys.argv[1]
SHARED_TOKENS = 400
REQUESTS = 16
ANSWER = 60
BLOCK = 16
BLOCK_BYTES = 2 * 4 * 4 * 24 * 2 * BLOCK  # keys and values, layers, heads, their size, bf16: of the whole model
ONE, MANY = {"gateways": 0}, {"tensor": 2, "pipeline": 2, "many": True}
SIZES = {"slots": REQUESTS, "step_tokens": 64, "threads": 1, "record_logits": True}


def prompts():
    """Sixteen with one beginning, each with a tail of its own, all of different lengths. The first two tails
    differ in the last token of a block alone, so that a block is wrong if not every token counts."""
    rng = random.Random(11)
    tokens = lambda count: [rng.randrange(20, 1500) for _ in range(count)]  # noqa: E731
    shared = tokens(SHARED_TOKENS)
    tails = [[200 + i] + tokens(4 + 2 * i) for i in range(REQUESTS)]
    tails[0] = [200] + tokens(17)
    tails[1] = tails[0][:BLOCK - 1] + [201] + tails[0][BLOCK:]
    return [shared + tail for tail in tails]


PROMPTS = prompts()
# The same blocks from the second on, behind another first token: not one of them may be taken.
OTHER = [19] + PROMPTS[3][1:]
assert max(map(len, PROMPTS)) + ANSWER <= 512 and len(set(map(tuple, PROMPTS))) == REQUESTS


def whole(tokens, block=BLOCK):
    return tokens // block * block


class Answer:
    """One answer to the last bit: ids, log-probabilities as printed, digest of all logits."""

    def __init__(self, deployment, prompt):
        status, head, body = deployment.request("POST", "/v1/completions", {
            "prompt": prompt, "max_tokens": ANSWER, "temperature": 0, "logprobs": 0, "ignore_eos": True,
            "return_token_ids": True})
        check(status == 200, f"status {status}: {body}")
        choice = body["choices"][0]
        self.id = head.getheader("X-Spillway-Request-Id")
        self.cached = body["usage"]["prompt_tokens_details"]["cached_tokens"]
        self.bits = [choice["token_ids"], choice["logprobs"]["token_logprobs"]]
        check(len(self.bits[0]) == len(self.bits[1]) == ANSWER, f"{body}")


def ask(deployment, asked, at_once):
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(lambda prompt: Answer(deployment, prompt), asked))
    for _ in range(50):  # the log line comes after the answer
        digests = deployment.digests()
        if all(answer.id in digests for answer in answers):
            break
        time.sleep(0.1)
    for answer in answers:
        check(answer.id in digests, f"no digest for {answer.id}")
        answer.bits.append(digests[answer.id])
    return answers


def settled(deployment):
    """The status when nobody is served any more and copies in the background have ended."""
    last = None
    for _ in range(300):
        now = deployment.status()
        now.pop("uptime_seconds")
        for rank in now["ranks"]:
            rank.pop("heard_seconds_ago")
        if now == last and now["requests"]["running"] + now["requests"]["waiting"] == 0:
            return now
        last = now
        time.sleep(0.5)  # reports come several times a second
    raise Failure("copies do not end")


def same(answers, wanted, when):
    wrong = [i for i, pair in enumerate(zip(answers, wanted)) if pair[0].bits != pair[1].bits]
    check(len(answers) == len(wanted) and not wrong, f"{when}: answers {wrong} differ")


def words(layout, blocks=0, **more):
    """blocks: of KV memory on the device."""
    ranks = layout.get("tensor", 1) * layout.get("pipeline", 1)
    sizes = {"kv_bytes": blocks * BLOCK_BYTES // ranks} if blocks else {}
    return serve_words(BINARY, DEMO, **{**SIZES, **sizes, **layout, **more})


ALONE = []  # the answers without a cache, each request by itself


def alone():
    if not ALONE:
        with Deployment(words(ONE, prefix_cache="off")) as plain:
            ALONE.extend(ask(plain, PROMPTS + [OTHER], 1))
            seen = settled(plain)
        bits = [str(answer.bits) for answer in ALONE]
        check(len(set(bits)) == len(bits), "prompts that differ have one answer: this test could not fail")
        check(all(answer.cached == 0 for answer in ALONE), "something is cached without a cache")
        check(seen["prefix"]["prefill_computed"] == sum(map(len, PROMPTS + [OTHER])),
              f"not every row was counted: {seen['prefix']}")
    return ALONE[:REQUESTS]


def once(seen, block, when):
    """The shared whole blocks were computed once, everything else by each request itself."""
    shared = whole(SHARED_TOKENS, block)
    computed = shared + sum(len(prompt) - shared for prompt in PROMPTS)
    found = seen["prefix"]
    check(found["prefill_computed"] == computed and found["cached_tokens"] == (REQUESTS - 1) * shared,
          f"{when}: {found}, not {computed} computed and {(REQUESTS - 1) * shared} found")


def computed_once(layout, block=BLOCK, **more):
    wanted = alone()
    with Deployment(words(layout, block_tokens=block, **more)) as served:
        answers = ask(served, PROMPTS, REQUESTS)
        same(answers, wanted, "at once")
        seen = settled(served)
        once(seen, block, f"blocks of {block}")
        cached = sum(answer.cached for answer in answers)
        check(cached == seen["prefix"]["cached_tokens"], f"clients were told of {cached} cached tokens")
        check(seen["requests"]["preempted"] == 0, "somebody was preempted")
        before = seen["prefix"]
        same(ask(served, [OTHER], 1), ALONE[REQUESTS:], "another first token")
        after = settled(served)["prefix"]
        check(after["cached_tokens"] == before["cached_tokens"] and
              after["prefill_computed"] == before["prefill_computed"] + len(OTHER),
              f"a block behind another first token was taken: {before}, {after}")


def preempted(layout, swap, blocks=70):
    """More than the blocks of the device hold at the end of the answers, though all prompts fit."""
    wanted = alone()
    host = {"host_kv_bytes": "16M"} if swap else {}
    with Deployment(words(layout, blocks, **host)) as served:
        for turn in range(2):  # the second time, prompts are in the index too
            same(ask(served, PROMPTS, REQUESTS), wanted, f"swap={swap} turn {turn}")
        seen = settled(served)
        counts, kv, prefix = seen["requests"], seen["kv"], seen["prefix"]
        print(f"     preempted={counts['preempted']} swapped={kv['swapped']} transfers={kv['transfers_done']} "
              f"computed={prefix['prefill_computed']} cached={prefix['cached_tokens']} "
              f"evicted={kv['blocks_evicted']}", flush=True)
        check(kv["blocks_total"] == blocks, f"{kv['blocks_total']} blocks, not {blocks}")
        check(counts["preempted"] > 0, f"nobody was preempted: {counts}")
        check(kv["transfers_failed"] == 0, f"a copy failed: {kv}")
        if swap:
            check(kv["swapped"] > 0 and kv["transfers_done"] > 0, f"nobody was swapped out: {kv}")
        else:
            check(kv["swapped"] == 0 and kv["transfers_done"] == 0, f"somebody was swapped out: {kv}")
        # each time that somebody was given a replica, a row was either found or computed
        check(prefix["prefill_computed"] + prefix["cached_tokens"] <= prefix["prompt_tokens"], f"{prefix}")
        least = SHARED_TOKENS + sum(len(prompt) - SHARED_TOKENS for prompt in PROMPTS)
        check(least <= prefix["prefill_computed"] < REQUESTS * SHARED_TOKENS, f"{prefix}")


def one_process_once():
    computed_once(ONE)
    computed_once(ONE, 32, step_tokens=512)


def one_process_swap():
    preempted(ONE, True)


def one_process_recompute():
    preempted(ONE, False)


TESTS = [one_process_once, one_process_swap, one_process_recompute]
harness.main([test for test in TESTS if not ARGUMENTS or test.__name__ in ARGUMENTS])
