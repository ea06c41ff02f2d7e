"""The commands of the executable as a user runs them: up, status, submit, run, down, dry run, help, completion.

usage: commands_test.py SPILLWAY
"""
import json
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(__file__))
import harness  # noqa: E402
from harness import DEMO, Deployment, check, spillway_pids  # noqa: E402

BINARY = sys.argv[1]
STORY = "Tell me a story about a cat and a river."


def command(*words, code=0, seconds=60, env=None):
    result = subprocess.run([BINARY, *words], capture_output=True, text=True, timeout=seconds,
                            cwd=harness.ROOT, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})
    check(result.returncode == code,
          f"{words}: code {result.returncode}, {code} is right\n{result.stdout}\n{result.stderr}")
    return result


def golden_answer():
    with open(os.path.join(DEMO, "golden.json"), encoding="utf-8") as file:
        cases = json.load(file)["cases"]
    for case in cases:
        if case["kind"] == "chat" and case["messages"][-1]["content"] == STORY:
            return case
    raise harness.Failure("no such case in golden.json")


def help_of_every_command():
    listed = command("--help").stdout
    for name in ("up", "serve", "run", "submit", "status", "down", "model", "bench"):
        check(name in listed, f"{name} is not in the list of commands")
        text = command(name, "--help").stdout
        check("example" in text and f"usage: spillway {name}" in text, f"{name} --help: {text}")


def completion_for_bash():
    script = command("completion").stdout
    words = "source /dev/stdin; COMP_WORDS=(spillway se); COMP_CWORD=1; _spillway; echo ${COMPREPLY[@]}"
    result = subprocess.run(["bash", "-c", words], input=script, capture_output=True, text=True)
    check("serve" in result.stdout.split(), f"completion gives: {result.stdout} {result.stderr}")


def usage_errors():
    check("unknown command" in command("dance", code=2).stderr, "unknown command is not named")
    check("--tensr" in command("serve", "--tensr", "2", code=2).stderr, "unknown flag is not named")
    wrong = command("serve", "--model", DEMO, "--tensor", "two", code=3).stderr
    check("--tensor" in wrong and "two" in wrong and "1 to 8" in wrong, wrong)


def dry_run():
    text = command("up", "--model", DEMO, "--tensor", "2", "--pipeline", "2", "--dry-run").stdout
    rows = text.splitlines()[1:7]
    roles = [row.split()[3] for row in rows]
    check(roles == ["coordinator"] + ["worker"] * 4 + ["gateway"], text)
    check([int(row.split()[0]) for row in rows] == list(range(6)), text)
    check(not spillway_pids(BINARY), "something was started")


def run_answers():
    for layout in (("1", "1"), ("2", "2")):
        text = command("run", "--model", DEMO, "--dtype", "f32", "--greedy", "--tensor", layout[0],
                       "--pipeline", layout[1], STORY).stdout
        check(text.strip() == golden_answer()["text"].strip(), f"another answer: {text}")


def up_status_submit_and_interrupt():
    words = [BINARY, "up", "--model", DEMO, "--dtype", "f32", "--tensor", "2", "--pipeline", "2", "--http",
             "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
    with Deployment(words) as deployment:
        table = command("status", "--to", deployment.grpc).stdout
        check(table.count("worker") == 4 and "coordinator" in table and "gateway" in table, table)
        state = json.loads(command("status", "--to", deployment.grpc, "--json").stdout)
        check([rank["role"] for rank in state["ranks"]] == ["coordinator"] + ["worker"] * 4 + ["gateway"],
              f"{state}")
        check(state["ready"] and state["healthy"], f"{state}")
        text = command("submit", "--to", deployment.grpc, "--temperature", "0", STORY).stdout
        check(text.strip() == golden_answer()["text"].strip(), f"another answer: {text}")
        time.sleep(0.5)
        state = json.loads(command("status", "--to", deployment.grpc, "--json").stdout)
        steps = [rank["steps"] for rank in state["ranks"] if rank["role"] == "worker"]
        check(min(steps) > 20 and max(steps) == min(steps), f"steps of the workers: {steps}")
    time.sleep(0.3)
    check(not spillway_pids(BINARY), f"left behind: {spillway_pids(BINARY)}")


def daemon_and_down():
    with tempfile.TemporaryDirectory() as folder:
        ready = command("up", "--daemon", "--state-dir", folder, "--model", DEMO, "--http", "127.0.0.1:0",
                        "--grpc", "127.0.0.1:0").stdout
        address = dict(word.split("=") for word in ready.split()[1:])["grpc"]
        check("ready" in command("status", "--to", address).stdout, "status of the daemon")
        again = command("up", "--daemon", "--state-dir", folder, "--model", DEMO, code=3).stderr
        check("runs already" in again, again)
        command("down", "--state-dir", folder)
        check(not spillway_pids(BINARY), f"left behind: {spillway_pids(BINARY)}")


def site_file():
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(f"model: {DEMO}\ntensor: 2\nhttp: 127.0.0.1:0\ngrpc: ''\n")
        file.flush()
        with Deployment([BINARY, "serve", "--site", file.name]) as deployment:
            check(deployment.status()["layout"]["tensor"] == 2, "tensor of the site file")
        file.write("tensr: 3\n")
        file.flush()
        error = command("serve", "--site", file.name, code=3).stderr
        check("line 5" in error and "tensr" in error, error)


def sockets_of_unix():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        words = [BINARY, "serve", "--model", DEMO, "--dtype", "f32", "--http", "", "--grpc", "", "--unix", path]
        with Deployment(words):
            text = command("submit", "--to", f"unix:{path}.grpc", "--temperature", "0", STORY).stdout
            check(text.strip() == golden_answer()["text"].strip(), f"another answer: {text}")
            result = subprocess.run(["curl", "-sS", "--unix-socket", path, "http://localhost/v1/models"],
                                    capture_output=True, text=True)
            check("demo-model" in result.stdout, f"{result.stdout} {result.stderr}")


def client_that_goes_away():
    """A stream that its client closes is cancelled: its blocks come back at once."""
    with Deployment(harness.serve_words(BINARY, DEMO)) as deployment:
        events = deployment.stream("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 480,
                                                      "temperature": 0, "ignore_eos": True})
        next(events)
        events.close()
        for _ in range(100):
            state = deployment.status()
            if state["requests"]["cancelled"] == 1:
                break
            time.sleep(0.02)
        check(state["requests"]["cancelled"] == 1, f"not cancelled: {state['requests']}")
        check(state["requests"]["running"] == 0 and state["kv"]["blocks_used"] == 0, f"{state}")


def bench_prints_one_object_a_line():
    lines = command("bench", "scheduler", "--quick", "--json").stdout.splitlines()
    rows = {row["case"]: row for row in map(json.loads, lines)}
    check(len(rows) == len(lines) > 10, f"{lines}")
    for row in rows.values():
        check(set(row) == {"bench", "case", "value", "unit", "limit", "fraction"}, f"{row}")
        check(row["bench"] == "scheduler" and row["value"] >= 0, f"{row}")
    for waiting in (100, 1000, 10000, 100000):
        row = rows[f"turn, {waiting} waiting"]
        check(row["unit"] == "us" and row["limit"] > 0, f"{row}")
    check("scheduler or load" in command("bench", "dance", code=2).stderr, "an unknown benchmark")


if __name__ == "__main__":
    harness.main([help_of_every_command, completion_for_bash, usage_errors, dry_run, run_answers,
                  up_status_submit_and_interrupt, daemon_and_down, site_file, sockets_of_unix,
                  client_that_goes_away, bench_prints_one_object_a_line])
