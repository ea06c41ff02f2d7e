"""KV blocks in host memory and on disk: whatever goes there and comes back, the answers are the same to the
last bit (C1), also after a kill and a restart, and no damaged block is used (C4).

usage: kv_tiers_test.py SPILLWAY
"""
import concurrent.futures
import glob
import os
import random
import re
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(__file__))
import harness  # noqa: E402
from harness import DEMO, Deployment, Failure, check, kill_all, serve_words  # noqa: E402

BINARY = sys.argv[1]
TOKENS = 12
# about twenty prompts' worth of blocks on the device, far fewer than the prompts below have
SIZES = {"kv_bytes": "2M", "slots": 4, "step_tokens": 64, "threads": 1}
LAYOUTS = [{"gateways": 0}, {"tensor": 2, "pipeline": 2, "many": True}]


def prompts():
    """Thirty of 150 tokens; each ten share their first 64."""
    rng = random.Random(5)
    shared = [[rng.randrange(20, 200) for _ in range(64)] for _ in range(3)]
    return [shared[i % 3] + [rng.randrange(20, 200) for _ in range(86)] for i in range(30)]


PROMPTS = prompts()


def answers(deployment, at_once):
    """Ids and log-probabilities, in the order of the prompts."""
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda prompt: deployment.complete(prompt, TOKENS)[:2], PROMPTS))


def figures(deployment):
    """Metrics of KV blocks by name and labels but the model's."""
    text = deployment.request("GET", "/metrics")[2].decode()
    found = {}
    for name, labels, value in re.findall(r"^spillway_(kv_\w+){([^}]*)} (\S+)$", text, re.M):
        rest = [word for word in labels.split(",") if not word.startswith("model_name=")]
        found[",".join([name, *rest])] = float(value)
    return found


def settle(deployment):
    """Until copies in the background have ended."""
    last = None
    for _ in range(200):
        now = figures(deployment)
        if now == last:
            return now
        last = now
        time.sleep(1)  # reports come several times a second
    raise Failure("copies do not end")


def damage(folder):
    """A byte of every block's part, in each rank's file: the payloads of the first 256 slots."""
    files = glob.glob(os.path.join(folder, "*.kv"))
    for path in files:
        with open(path, "r+b") as file:
            size = os.path.getsize(path)
            for at in range(4096 + 256 * 192 + 1000, size, 2048):
                file.seek(at)
                byte = file.read(1)
                file.seek(at)
                file.write(bytes([byte[0] ^ 1]))
    return len(files)


def same(found, wanted, when):
    wrong = [i for i, pair in enumerate(zip(found, wanted)) if pair[0] != pair[1]]
    check(len(found) == len(wanted) and not wrong, f"{when}: answers {wrong} differ")


def try_layout(layout):
    workers = layout.get("tensor", 1) * layout.get("pipeline", 1)
    with Deployment(serve_words(BINARY, DEMO, prefix_cache="off", **SIZES, **layout)) as plain:
        wanted = answers(plain, 1)
    check(wanted[0] != wanted[3], "prompts that differ have one answer: this test could not fail")
    with tempfile.TemporaryDirectory() as folder:
        tiers = serve_words(BINARY, DEMO, host_kv_bytes="3M", disk_kv_bytes="16M", kv_dir=folder, **SIZES,
                            **layout)
        first = Deployment(tiers)
        try:
            same(answers(first, 1), wanted, "one after the other")
            same(answers(first, 8), wanted, "eight at once")
            seen = settle(first)
            check(seen["kv_copies_total"] > 0 and seen["kv_disk_bytes"] > 0, f"nothing moved: {seen}")
            check(seen["kv_blocks_damaged_total"] == 0, f"blocks were refused: {seen}")
        finally:
            kill_all(BINARY, first)
        with Deployment(tiers) as second:
            used = re.search(r"KV blocks on disk replica=0 found=(\d+) used=(\d+)", second.log())
            check(used and int(used.group(2)) > 0, f"nothing was found on disk:\n{second.log()}")
            same(answers(second, 8), wanted, "after a restart")
            seen = settle(second)
            check(seen["kv_copies_total"] > 0 and seen["kv_blocks_damaged_total"] == 0,
                  f"nothing came from disk, or not whole: {seen}")
        check(damage(folder) == workers, "not a file for each worker")
        with Deployment(tiers) as third:
            same(answers(third, 8), wanted, "with damaged blocks")
            seen = settle(third)
            check(seen["kv_blocks_damaged_total"] > 0, f"no damaged block was read: {seen}")
            try:
                Deployment(tiers).kill()
                raise Failure("two deployments share a folder")
            except Failure as error:
                check("is in use by another deployment: give each its own kv-dir" in str(error), str(error))


def one_process():
    try_layout(LAYOUTS[0])


def ranks_under_mpirun():
    try_layout(LAYOUTS[1])


harness.main([one_process, ranks_under_mpirun])
