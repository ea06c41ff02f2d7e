"""Starts that cannot work end soon, with one clear error, a non-zero code and no rank left behind (C2, C3).

usage: failures_test.py SPILLWAY
"""
import concurrent.futures
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(__file__))
import harness  # noqa: E402
from harness import DEMO, Deployment, check, mpirun, serve_words, spillway_pids  # noqa: E402

BINARY = sys.argv[1]
LIMIT_SECONDS = 10
COMMON = ["serve", "--tensor", "2", "--pipeline", "2", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]


def copy_of_model(folder, change):
    """A copy of the demo model with a changed weights file."""
    copy = os.path.join(folder, "model")
    shutil.copytree(DEMO, copy)
    change(os.path.join(copy, "model.safetensors"))
    return copy


def ends_with(words, *wanted):
    """Run to the end: soon, non-zero, exactly one error line of ours that has all wanted words, nobody left."""
    begin = time.monotonic()
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=harness.ROOT,
                            stdin=subprocess.DEVNULL)
    seconds = time.monotonic() - begin
    errors = [line for line in result.stderr.splitlines() if " error " in line]
    check(seconds < LIMIT_SECONDS, f"took {seconds:.1f} s:\n{result.stderr}")
    check(result.returncode != 0, f"ended with 0:\n{result.stderr}")
    check(len(errors) == 1, f"{len(errors)} errors instead of one:\n{result.stderr}")
    for word in wanted:
        check(word in errors[0], f"no '{word}' in: {errors[0]}")
    for _ in range(20):
        if not spillway_pids(BINARY):
            break
        time.sleep(0.1)
    check(not spillway_pids(BINARY), f"left behind: {spillway_pids(BINARY)}")
    return result


def five_and_one(one):
    """Rank 3 gets other words than the five others."""
    usual = [BINARY, *COMMON, "--model", DEMO]
    words = mpirun(3) + usual + [":", "-np", "1"] + one + [":", "-np", "2"] + usual
    return words


def missing_weights_on_one_rank():
    with tempfile.TemporaryDirectory() as folder:
        model = copy_of_model(folder, os.remove)
        ends_with(five_and_one([BINARY, *COMMON, "--model", model]), "rank 3", "model.safetensors")


def unequal_configs():
    other = [BINARY, *COMMON, "--model", DEMO, "--block-tokens", "32"]
    ends_with(five_and_one(other), "rank 0", "rank 3", "block_tokens=16", "block_tokens=32")


def unequal_models():
    with tempfile.TemporaryDirectory() as folder:
        model = copy_of_model(folder, lambda path: None)
        with open(os.path.join(model, "generation_config.json"), "a", encoding="utf-8") as file:
            file.write("\n")
        ends_with(five_and_one([BINARY, *COMMON, "--model", model]), "rank 3", "model")


def truncated_weights():
    with tempfile.TemporaryDirectory() as folder:
        model = copy_of_model(folder, lambda path: os.truncate(path, os.path.getsize(path) - 1000))
        words = mpirun(6) + [BINARY, *COMMON, "--model", model]
        ends_with(words, "model.safetensors", "rank 0")


def truncated_weights_in_one_process():
    with tempfile.TemporaryDirectory() as folder:
        model = copy_of_model(folder, lambda path: os.truncate(path, 5000))
        result = ends_with([BINARY, *COMMON, "--model", model], "model.safetensors")
        check(result.returncode == 3, f"code {result.returncode}, 3 is right")


def wrong_rank_count():
    words = mpirun(5) + [BINARY, *COMMON, "--model", DEMO]
    ends_with(words, "5 ranks", "needs 6", "-np 6")


def layout_that_does_not_fit():
    words = [BINARY, "serve", "--model", DEMO, "--tensor", "8"]
    result = ends_with(words, "8", "4")
    check(result.returncode == 3, f"code {result.returncode}, 3 is right")


def address_in_use():
    with Deployment(serve_words(BINARY, DEMO, gateways=0)) as first:
        result = subprocess.run([BINARY, "serve", "--model", DEMO, "--http", first.http, "--grpc", ""],
                                capture_output=True, text=True, timeout=20, cwd=harness.ROOT)
        check(result.returncode == 3, f"code {result.returncode}:\n{result.stderr}")
        check(first.http in result.stderr, f"address not named:\n{result.stderr}")


def killed_worker_ends_the_job():
    """One replica, one worker killed: nothing can go on, so the job ends with code 4 and frees its nodes."""
    deployment = Deployment(serve_words(BINARY, DEMO, 2, 2, many=True))
    ranks = deployment.status()["ranks"]
    check([rank["state"] for rank in ranks] == ["ready"] * 6, f"states: {ranks}")
    os.kill(ranks[3]["pid"], signal.SIGKILL)
    begin = time.monotonic()
    code = deployment.process.wait(30)
    seconds = time.monotonic() - begin
    check(code == 4, f"code {code}, 4 is right\n{deployment.log()}")
    check(seconds < 15, f"took {seconds:.1f} s")
    check("rank 3" in deployment.log(), f"rank 3 is not named\n{deployment.log()}")
    time.sleep(0.5)
    check(not spillway_pids(BINARY), f"left behind: {spillway_pids(BINARY)}")


def killed_up_leaves_nobody():
    """SIGKILL of the parent: mpirun and all ranks end by themselves."""
    deployment = Deployment(serve_words(BINARY, DEMO, 2, 1, many=True))
    deployment.process.kill()
    deployment.process.wait()
    for _ in range(100):
        if not spillway_pids(BINARY):
            return
        time.sleep(0.1)
    raise harness.Failure(f"left behind: {spillway_pids(BINARY)}")


def poison(path, token):
    """Make the embedding of one token not a number: a sequence that contains it has no finite logit."""
    with open(path, "r+b") as file:
        header_bytes = struct.unpack("<Q", file.read(8))[0]
        tensor = json.loads(file.read(header_bytes))["model.embed_tokens.weight"]
        row_bytes = 2 * tensor["shape"][1]
        file.seek(8 + header_bytes + tensor["data_offsets"][0] + token * row_bytes)
        file.write(b"\xc0\x7f" * (row_bytes // 2))


def poisoned_request_ends_alone():
    """A request without a finite logit ends with an error; the others and the replica go on (C2)."""
    with tempfile.TemporaryDirectory() as folder:
        model = copy_of_model(folder, lambda path: poison(path, 1000))
        with Deployment(serve_words(BINARY, model, 2, 2, many=True)) as deployment:
            good = [1531, 427, 426, 256, 406]
            before = deployment.complete(good, 8)[0]
            with concurrent.futures.ThreadPoolExecutor(9) as pool:
                others = [pool.submit(deployment.complete, good, 100) for _ in range(8)]
                status, _, body = deployment.request("POST", "/v1/completions", {
                    "prompt": [1531, 427, 1000], "max_tokens": 8, "temperature": 0})
                check(status == 500 and "finite" in body["error"]["message"], f"{status} {body}")
                for other in others:
                    check(other.result()[0][:8] == before, "another request was disturbed")
            check(deployment.complete(good, 8)[0] == before, "the replica does not serve any more")
            check(deployment.request("GET", "/health")[0] == 200, "not healthy")


def stopped_before_it_is_ready():
    """SIGTERM at any moment of the start: `up` ends soon and leaves nobody."""
    for delay in (0.05, 0.15, 0.3, 0.6, 1.0):
        process = subprocess.Popen(serve_words(BINARY, DEMO, 2, 1, many=True), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=harness.ROOT)
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        process.wait(15)
        for _ in range(50):
            if not spillway_pids(BINARY):
                break
            time.sleep(0.1)
        check(not spillway_pids(BINARY), f"after {delay} s: left behind: {spillway_pids(BINARY)}")


if __name__ == "__main__":
    harness.main([missing_weights_on_one_rank, unequal_configs, unequal_models, truncated_weights,
                  truncated_weights_in_one_process, wrong_rank_count, layout_that_does_not_fit,
                  address_in_use, killed_worker_ends_the_job, killed_up_leaves_nobody,
                  stopped_before_it_is_ready, poisoned_request_ends_alone])
