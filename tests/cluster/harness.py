"""Starts deployments for tests, talks to them, and makes sure that nothing is left behind.

Standard library only. Every deployment listens on loopback ports that it chose itself.
"""
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
SHARED = os.path.abspath(os.path.join(ROOT, "..", "shared", "data"))
DEMO = os.path.join(ROOT, "launch", "demo-model")


class Failure(Exception):
    pass


def check(condition, words):
    if not condition:
        raise Failure(words)


def mpirun(ranks):
    """Words that start `ranks` ranks on this host. The last ones are for the program."""
    words = ["mpirun", "--oversubscribe", "--bind-to", "none"]
    if os.geteuid() == 0:
        words.append("--allow-run-as-root")
    return words + ["-np", str(ranks)]


def spillway_pids(binary):
    """Processes that run this very executable."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if os.path.samefile(f"/proc/{name}/exe", binary):
                found.append(int(name))
        except OSError:
            continue
    return found


def kill_all(binary, deployment):
    """Every rank at once, without a word."""
    pids = spillway_pids(binary)
    check(pids, "nothing runs")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    deployment.kill()
    for _ in range(100):
        if not spillway_pids(binary):
            return
        time.sleep(0.1)
    raise Failure(f"left behind: {spillway_pids(binary)}")


class Deployment:
    """A deployment under test: command line, ready line, addresses, log."""

    def __init__(self, words, seconds=60, env=None):
        self.words = words
        self.log_file = tempfile.TemporaryFile(mode="w+b")
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self.log_file,
                                        stdin=subprocess.DEVNULL, cwd=ROOT,
                                        env={**os.environ, **(env or {})}, start_new_session=True)
        self.http = self.grpc = None
        self.lines = []
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        deadline = time.monotonic() + seconds
        while not self.ready.wait(0.05):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise Failure(f"not ready: {' '.join(words)}\n{self.log()}")

    def _read(self):
        for line in self.process.stdout:
            line = line.decode(errors="replace").strip()
            self.lines.append(line)
            if line.startswith("ready"):
                fields = dict(word.split("=", 1) for word in line.split()[1:])
                self.http, self.grpc = fields.get("http"), fields.get("grpc")
                self.ready.set()

    def log(self):
        with open(f"/proc/self/fd/{self.log_file.fileno()}", "rb") as copy:
            return copy.read().decode(errors="replace")

    def stop(self, seconds=45, how=signal.SIGINT):
        """Drain and end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"did not end within {seconds} s of {how.name}\n{self.log()}")
        self.reader.join(5)
        return code

    def kill(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            code = self.stop()
            check(code == 0, f"ended with code {code}\n{self.log()[-4000:]}")
        else:
            self.kill()

    # --- HTTP ---

    def request(self, method, path, body=None, headers=None):
        """(status, headers, parsed body)"""
        host, port = self.http.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        try:
            data = json.dumps(body) if isinstance(body, (dict, list)) else body
            connection.request(method, path, data,
                               {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            text = answer.read()
            kind = answer.getheader("Content-Type", "")
            return answer.status, answer, json.loads(text) if "json" in kind else text
        finally:
            connection.close()

    def complete(self, prompt, tokens, **fields):
        """A greedy completion of token ids: (ids, logprobs, request id)."""
        status, answer, body = self.request("POST", "/v1/completions", {
            "prompt": prompt, "max_tokens": tokens, "temperature": 0, "logprobs": 0,
            "ignore_eos": True, "return_token_ids": True, **fields})
        check(status == 200, f"status {status}: {body}")
        choice = body["choices"][0]
        return (choice["token_ids"], choice["logprobs"]["token_logprobs"],
                answer.getheader("X-Spillway-Request-Id"))

    def stream(self, path, body):
        """Server-sent events of a streamed answer, as they come."""
        host, port = self.http.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        try:
            connection.request("POST", path, json.dumps({**body, "stream": True}),
                               {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise Failure(f"status {answer.status}: {answer.read()}")
            for line in answer:
                line = line.strip()
                if line.startswith(b"data: ") and line != b"data: [DONE]":
                    yield json.loads(line[6:])
        finally:
            connection.close()

    def status(self):
        return self.request("GET", "/status")[2]

    def digests(self):
        """request id -> (tokens, digest of its logits), of a deployment with --record-logits."""
        found = {}
        for line in self.log().splitlines():
            match = re.search(r"logits request=(\w+) tokens=(\d+) digest=(\w+)", line)
            if match:
                found[match.group(1)] = (int(match.group(2)), match.group(3))
        return found


def serve_words(binary, model, tensor=1, pipeline=1, gateways=1, many=False, **flags):
    """A single process, or `many`: ranks that `up` starts under mpirun. Flags by keyword: prefill_chunk=7."""
    words = [binary, "up" if many else "serve", "--model", model, "--tensor", str(tensor), "--pipeline", str(pipeline),
             "--gateways", str(gateways), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
    for key, value in flags.items():
        flag = "--" + key.replace("_", "-")
        words += [flag] if value is True else [flag, str(value)]
    return words


def main(tests, argv=None):
    """Run the named functions; print what failed, and the closing line."""
    passed = failed = 0
    for test in tests:
        begin = time.monotonic()
        try:
            test()
            passed += 1
            print(f"ok   {test.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
        except Exception as error:  # a test that broke is a test that failed
            failed += 1
            print(f"FAIL {test.__name__}: {type(error).__name__}: {error}", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)
