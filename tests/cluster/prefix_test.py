"""A prefix that many requests share is computed once, counted in rows; and whatever becomes of its blocks - kept,
swapped out and back, computed again, read from disk after a restart - no bit of an answer changes (C1, C4).

usage: prefix_test.py SPILLWAY [--expect-failure] [NAME ...]

--expect-failure is for a build that takes a wrong block: the test succeeds if different answers are found.
"""
import concurrent.futures
import glob
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(__file__))
import harness  # noqa: E402
from harness import DEMO, Deployment, Failure, check, kill_all, serve_words  # noqa: E402

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
        # beyond each prompt once: less than a block for everybody that comes with its blocks there
        least = SHARED_TOKENS + sum(len(prompt) - SHARED_TOKENS for prompt in PROMPTS)
        again = prefix["prefill_computed"] - least
        check(0 <= again < REQUESTS * SHARED_TOKENS, f"{prefix}")
        if swap:
            check(again <= (REQUESTS + counts["preempted"]) * BLOCK, f"computed again: {again}")
        else:
            check(again > REQUESTS * BLOCK, f"nothing was computed again: {again}")


def tiers(layout, folder):
    """More than everything takes, in each tier."""
    return words(layout, 400, host_kv_bytes="16M", disk_kv_bytes="32M", kv_dir=folder)


FOUND = sum(whole(len(prompt) - 1) for prompt in PROMPTS)  # at least one row of each is computed
LEFT = sum(map(len, PROMPTS)) - FOUND


def from_disk(layout, folder, when):
    """A start after a stop: of what the prompts hold in whole blocks nothing is computed again."""
    with Deployment(tiers(layout, folder)) as again:
        used = re.search(r"KV blocks on disk replica=0 found=(\d+) used=(\d+)", again.log())
        check(used and int(used.group(2)) > 0, f"{when}: nothing was found on disk:\n{again.log()}")
        answers = ask(again, PROMPTS, REQUESTS)
        same(answers, ALONE[:REQUESTS], when)
        seen = settled(again)
        found = seen["prefix"]
        check(found["prefill_computed"] == LEFT and found["cached_tokens"] == FOUND,
              f"{when}: {found}, not {LEFT} computed and {FOUND} found; {used.group(0)}")
        check(sum(answer.cached for answer in answers) == FOUND, f"{when}: clients were told otherwise")
        check(sum(rank["kv_tiers"]["blocks_damaged"] for rank in seen["ranks"] if "kv_tiers" in rank) == 0,
              f"{when}: blocks were refused")


def damage(folder, index, name):
    """One byte of the one block at this place of a chain, in one rank's file."""
    path, = glob.glob(os.path.join(folder, name))
    places = []
    with open(path, "r+b") as file:
        data = file.read()
        stride = int.from_bytes(data[16:24], "little")
        for slot in range(len(data) // stride):
            segment = 4096 + slot // 256 * (256 * 192 + 256 * stride)
            head = data[segment + slot % 256 * 192:][:192]
            if len(head) == 192 and any(head) and int.from_bytes(head[136:140], "little") == index:
                places.append(segment + 256 * 192 + slot % 256 * stride)
        check(len(places) == 1, f"{path}: block {index} is at {places}")
        file.seek(places[0] + 1000)
        file.write(bytes([data[places[0] + 1000] ^ 4]))


def damaged(layout, folder, index=10):
    """A damaged block is not used: it and what follows it is computed again, once, and is whole the next time."""
    damage(folder, index, f"*-stage-{layout.get('pipeline', 1) - 1}-tensor-0.kv")
    with Deployment(tiers(layout, folder)) as again:
        same(ask(again, PROMPTS, REQUESTS), ALONE[:REQUESTS], "with a damaged block")
        seen = settled(again)
        counts = [rank["kv_tiers"]["blocks_damaged"] for rank in seen["ranks"] if "kv_tiers" in rank]
        check(sum(counts) == 1, f"damaged blocks seen by ranks: {counts}")
        check(re.search(f"block not moved from=disk .* index={index} .*its bytes do not match their checksum",
                        again.log()), f"the log does not say so:\n{again.log()}")
        computed = SHARED_TOKENS - index * BLOCK + sum(len(prompt) - SHARED_TOKENS for prompt in PROMPTS)
        found = seen["prefix"]
        check(found["prefill_computed"] == computed, f"{found}, not {computed} computed")
        check(seen["kv"]["transfers_failed"] >= 1, f"{seen['kv']}")


def restarted(layout):
    wanted = alone()
    with tempfile.TemporaryDirectory() as folder:
        first = Deployment(tiers(layout, folder))
        try:
            same(ask(first, PROMPTS, REQUESTS), wanted, "before the restart")
            once(settled(first), BLOCK, "before the restart")
        finally:
            kill_all(BINARY, first)
        from_disk(layout, folder, "after SIGKILL")
        from_disk(layout, folder, "after a stop")
        damaged(layout, folder)
        from_disk(layout, folder, "after the damage")


def drained(layout):
    """Nothing ever had to leave the device, and everything is in use when the stop comes: it is on disk all the
    same when the deployment has ended."""
    wanted = alone()
    with tempfile.TemporaryDirectory() as folder:
        first = Deployment(tiers(layout, folder))
        try:
            with concurrent.futures.ThreadPoolExecutor(REQUESTS) as pool:
                answers = [pool.submit(Answer, first, prompt) for prompt in PROMPTS]
                while first.status()["requests"]["running"] < REQUESTS:
                    check(not any(answer.done() for answer in answers), "the answers are too short for this test")
                code = first.stop(how=signal.SIGTERM)
            answers = [answer.result() for answer in answers]
        except Failure:
            first.kill()
            raise
        check(code == 0, f"ended with code {code}\n{first.log()}")
        for answer in answers:
            answer.bits.append(first.digests()[answer.id])
        same(answers, wanted, "before the stop")
        from_disk(layout, folder, "after SIGTERM")


def sizes():
    """Blocks beyond what running requests hold are of use to the cache, and are there when they are asked for."""
    two = {**ONE, "slots": 2, "prefix_cache": "tenant"}
    context = 512 // BLOCK
    for more, blocks in [({}, 4 * context), ({"prefix_cache": "off"}, 2 * context),
                         ({"kv_bytes": 200 * BLOCK_BYTES}, 200),
                         ({"kv_bytes": 200 * BLOCK_BYTES, "prefix_cache": "off"}, 2 * context)]:
        with Deployment(words({**two, **more})) as served:
            seen = served.status()["kv"]["blocks_total"]
            check(seen == blocks, f"{more}: {seen} blocks, not {blocks}")
    rng = random.Random(3)
    asked = [[rng.randrange(20, 1500) for _ in range(161)] for _ in range(10)]
    with Deployment(words({**two, "kv_bytes": 200 * BLOCK_BYTES})) as served:
        first = ask(served, asked, 2)
        second = ask(served, asked, 2)
        check([answer.bits for answer in first] == [answer.bits for answer in second], "answers differ")
        check(sum(answer.cached for answer in second) == 10 * 160, "more than what can run is not kept")


def fails(command, said):
    """A start that must end with exit code 3, a matter of the config."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                            cwd=harness.ROOT)
    check(result.returncode == 3, f"code {result.returncode}, 3 is right:\n{result.stdout}{result.stderr}")
    check(re.search(said, result.stderr), f"not said: {said}\n{result.stderr}")


def folder_in_use(layout):
    with tempfile.TemporaryDirectory() as folder:
        with Deployment(tiers(layout, folder)):
            fails(tiers(layout, folder), "is in use by another deployment: give each its own kv-dir")


def one_process_folder():
    folder_in_use(ONE)


def ranks_folder():
    folder_in_use(MANY)


def too_long_a_context():
    """A plan that names a whole prefix has to fit into a message."""
    with tempfile.TemporaryDirectory() as folder:
        for name in os.listdir(DEMO):
            os.symlink(os.path.join(DEMO, name), os.path.join(folder, name))
        with open(os.path.join(DEMO, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        os.unlink(os.path.join(folder, "config.json"))
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
            json.dump({**config, "max_position_embeddings": 8 << 20}, file)
        start = serve_words(BINARY, folder, **ONE, kv_bytes="100G", context_tokens=8 << 20, dry_run=True)
        fails(start, f"context-tokens is {8 << 20} and block-tokens 16: .*: raise --block-tokens to 64 or "
                     "lower --context-tokens to")


def one_process_once():
    computed_once(ONE)
    computed_once(ONE, 32, step_tokens=512)


def one_process_swap():
    preempted(ONE, True)


def one_process_recompute():
    preempted(ONE, False)


def one_process_restart():
    restarted(ONE)


def one_process_drain():
    drained(ONE)


def ranks_once():
    computed_once(MANY)


def ranks_swap():
    preempted(MANY, True)


def ranks_restart():
    restarted(MANY)


def ranks_drain():
    drained(MANY)


def finds_the_planted_bug():
    try:
        computed_once(ONE)
    except Failure as error:
        check("answers [" in str(error) and "differ" in str(error), str(error))
        return
    raise Failure("no difference was found")


TESTS = [one_process_once, one_process_swap, one_process_recompute, one_process_restart, one_process_drain,
         one_process_folder, sizes, too_long_a_context,
         ranks_once, ranks_swap, ranks_restart, ranks_drain, ranks_folder]
if "--expect-failure" in sys.argv:
    TESTS = [finds_the_planted_bug]
harness.main([test for test in TESTS if not ARGUMENTS or test.__name__ in ARGUMENTS])
