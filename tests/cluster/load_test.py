"""spillway bench load against a small server of the OpenAI API that stalls, refuses and breaks, and against
a deployment of our own.

usage: load_test.py SPILLWAY
"""
import csv
import http.server
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree

sys.path.insert(0, os.path.dirname(__file__))
import harness  # noqa: E402
from harness import DEMO, Deployment, check, serve_words  # noqa: E402

BINARY = sys.argv[1]


class FakeServer(http.server.ThreadingHTTPServer):
    """Answers max_tokens tokens at once; what it does beside that is set from outside."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address=("127.0.0.1", 0)):
        super().__init__(address, Handler)
        self.bodies, self.headers, self.connections = [], [], 0
        self.lock = threading.Lock()
        self.stall_at = self.stall_seconds = None  # the request that makes it stand still
        self.stalled_until = 0
        self.behave = lambda index: "answer"
        self.usage = True
        self.tokens_per_chunk = 1
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *about):
        self.shutdown()
        self.server_close()

    def get_request(self):
        self.connections += 1
        return super().get_request()

    def handle_error(self, request, client_address):
        pass  # clients that go away are part of the tests


class UnixFakeServer(FakeServer):
    address_family = socket.AF_UNIX

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0

    def get_request(self):
        return super().get_request()[0], ("local", 0)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        self.disable_nagle_algorithm = self.server.address_family == socket.AF_INET
        super().setup()

    def log_message(self, *words):
        pass

    def do_GET(self):
        self.plain(200, {"object": "list", "data": [{"id": "fake \"one\""}]})

    def plain(self, status, body, **headers):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def event(self, data):
        text = data if isinstance(data, str) else json.dumps(data)
        block = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
        self.wfile.flush()

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            index = len(server.bodies)
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            if index == server.stall_at:
                server.stalled_until = time.monotonic() + server.stall_seconds
            wait = server.stalled_until - time.monotonic()
        if wait > 0:
            time.sleep(wait)  # everybody who comes now waits until then
        what = server.behave(index)
        if isinstance(what, int):
            self.plain(what, {"error": {"message": f"status {what} it is"}}, Retry_After="1")
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        chat = "messages" in body
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        tokens = body["max_tokens"]
        sent = 0
        while sent < tokens:
            step = min(server.tokens_per_chunk, tokens - sent)
            sent += step
            piece = {"delta": {"content": " x" * step}} if chat else {"text": " x" * step}
            self.event({"choices": [{"index": 0, "finish_reason": None, **piece}], "usage": None})
            if what == "break" and sent >= tokens // 2:
                self.close_connection = True
                return
            if what == "hang" and sent >= tokens // 2:
                time.sleep(30)
        self.event({"choices": [{"index": 0, "delta": {}, "text": "", "finish_reason": "length"}], "usage": None})
        if server.usage:
            # a "tokenizer" of 2 tokens a word, and 7 around a prompt
            count = 2 * len(prompt.split()) + 7 if isinstance(prompt, str) else len(prompt)
            self.event({"choices": [], "usage": {"prompt_tokens": count, "completion_tokens": tokens,
                                                 "prompt_tokens_details": {"cached_tokens": 5}}})
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")


def load(server, *words, code=0):
    url = server if isinstance(server, str) else server.url
    result = subprocess.run([BINARY, "bench", "load", "--url", url, *words], capture_output=True, text=True,
                            timeout=120, cwd=harness.ROOT, stdin=subprocess.DEVNULL)
    check(result.returncode == code,
          f"{words}: code {result.returncode}, {code} is right\n{result.stdout}\n{result.stderr}")
    return result


def rows(result):
    """case without its name -> value"""
    found = {}
    for line in result.stdout.splitlines():
        row = json.loads(line)
        check(list(row) == ["bench", "case", "value", "unit", "limit", "fraction"] and row["bench"] == "load", line)
        found[row["case"].split(": ", 1)[1]] = row["value"]
    return found


def exact_counts_and_standard_fields():
    with FakeServer() as server, tempfile.TemporaryDirectory() as folder:
        svg, table = os.path.join(folder, "run.svg"), os.path.join(folder, "run.csv")
        found = rows(load(server, "--rate", "200", "--count", "60", "--warm-up", "15", "--output", "8", "--prompt",
                          "101", "--json", "--svg", svg, "--csv", table, "--goal-ttft-ms", "60000"))
        check(found["completed"] == 60 and found["warm-up"] == 15 and found["failed"] == 0, str(found))
        check(found["requests within the goal"] == 60, str(found))
        measured, bodies = server.bodies[:2], server.bodies[2:]
        check(len(bodies) == 75 and [body["max_tokens"] for body in measured] == [1, 1],
              f"{len(bodies)} requests came")
        for body in bodies:
            check(set(body) == {"model", "messages", "max_tokens", "temperature", "stream", "stream_options"},
                  f"not only standard fields: {sorted(body)}")
            check(body["model"] == 'fake "one"' and body["max_tokens"] == 8 and body["stream"] is True, str(body))
            check(len(body["messages"][0]["content"].split()) == 47, "101 tokens are 47 words of 2, and 7")
        check(server.connections <= 75, f"{server.connections} connections")
        root = xml.etree.ElementTree.parse(svg).getroot()
        check(root.tag.endswith("svg") and len(list(root)) == 5, "five charts")
        with open(table, encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        check(len(lines) == 75 and sum(line["warm_up"] == "1" for line in lines) == 15, "one line a request")
        check(all(line["outcome"] == "ok" and line["output_tokens"] == "8" and line["chunks"] == "8"
                  and line["prompt_tokens"] == "101" and line["cached_tokens"] == "5" for line in lines), str(lines[0]))


def equal_seeds_ask_the_same():
    asked = []
    for seed in ("5", "5", "6"):
        with FakeServer() as server:
            load(server, "--rate", "300", "--count", "20", "--seed", seed, "--tokens-per-word", "1", "--model", "m",
                 "--concurrency-max", "1")
            asked.append(server.bodies)
    check(len(asked[0]) == 20 and asked[0] == asked[1], "the same seed asks the same")
    check(asked[0] != asked[2], "another seed asks something else")


def token_ids_are_exact():
    with FakeServer() as server:
        load(server, "--api", "completions", "--tokenizer", DEMO, "--rate", "300", "--count", "20", "--prompt", "77",
             "--prefix-groups", "1", "--prefix-tokens", "50", "--ignore-eos", "--tenant", "web", "--priority", "low",
             "--deadline-ms", "2500")
        check(all(len(body["prompt"]) == 77 and body["ignore_eos"] is True for body in server.bodies), "77 ids")
        check(len({tuple(body["prompt"][:50]) for body in server.bodies}) == 1, "one prefix of 50 tokens")
        check(len({tuple(body["prompt"]) for body in server.bodies}) == 20, "and each its own end")
        for headers in server.headers:
            got = [headers.get(f"X-Spillway-{name}") for name in ("Tenant", "Priority", "Deadline-Ms")]
            check(got == ["web", "2", "2500"], str(got))


def a_stall_is_in_the_latency_of_all_who_were_due():
    """100 requests in 2 s; from the 40th on the server stands still for a second. In an open loop half of the
    requests see the stall: half a second and more is far above p50 of the others."""
    with FakeServer() as server, tempfile.TemporaryDirectory() as folder:
        table = os.path.join(folder, "run.csv")
        server.stall_at, server.stall_seconds = 40 + 2, 1.0
        found = rows(load(server, "--rate", "50", "--arrivals", "constant", "--count", "100", "--output", "2",
                          "--json", "--csv", table))
        check(found["completed"] == 100, str(found))
        check(found["time to first token p99"] > 900 and found["end to end max"] >= 990, str(found))
        with open(table, encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        slow = [line for line in lines if float(line["ttft_ms"]) > 250]
        # due in the first 750 ms of the stall, one each 20 ms: 37; more when the machine is slow, never one
        check(len(slow) >= 37, f"{len(slow)} requests saw the stall")

    # the same with one place: they are held back, and their latency still counts from their time
    with FakeServer() as server:
        server.stall_at, server.stall_seconds = 40 + 2, 1.0
        found = rows(load(server, "--rate", "50", "--arrivals", "constant", "--count", "100", "--output", "2",
                          "--json", "--concurrency-max", "1"))
        check(found["completed"] == 100 and found["waited for a place"] >= 37, str(found))
        check(found["time to first token p99"] > 900, str(found))


def failures_are_counted_by_kind():
    with FakeServer() as server:
        kinds = {0: 429, 1: 500, 2: "break", 3: "hang"}
        server.behave = lambda index: kinds.get((index - 2) % 10, "answer") if index >= 2 else "answer"
        found = rows(load(server, "--rate", "100", "--count", "50", "--output", "8", "--timeout", "3", "--json",
                          "--goal-ttft-ms", "60000", "--concurrency-max", "1000"))
        wanted = {"failed, HTTP 429": 5, "failed, HTTP 500": 5, "failed, broken stream": 5, "failed, timeout": 5,
                  "failed": 20, "completed": 30, "requests within the goal": 30}
        check({key: found.get(key) for key in wanted} == wanted, str(found))
        text = load(server, "--rate", "100", "--count", "10", "--output", "8", "--timeout", "3", "--model", "m",
                    "--tokens-per-word", "1").stdout
        check("status 429 it is" in text or "HTTP 429" in text, text)

    with FakeServer() as server:
        server.behave = lambda index: 503
        error = load(server, "--rate", "100", "--count", "5", "--model", "m", "--tokens-per-word", "1", code=1).stderr
        check("no request was answered" in error and "503" in error, error)
    error = load(server, "--rate", "100", "--count", "5", code=1).stderr
    check("no connection" in error and "/models" in error, error)


def servers_that_say_less():
    with FakeServer() as server:
        server.usage = False
        error = load(server, "--rate", "100", "--count", "5", code=1).stderr
        check("--tokens-per-word" in error, error)
        text = load(server, "--rate", "100", "--count", "5", "--output", "6", "--tokens-per-word", "1").stdout
        check("without usage" in text and "5 of 5 completed" in text, text)
        server.usage, server.tokens_per_chunk = True, 4
        text = load(server, "--rate", "100", "--count", "5", "--output", "8").stdout
        check("4.00 tokens a chunk" in text, text)


def interrupt_shows_what_there_is():
    with FakeServer() as server:
        server.behave = lambda index: "hang" if index >= 22 else "answer"
        process = subprocess.Popen([BINARY, "bench", "load", "--url", server.url, "--rate", "50", "--seconds", "600",
                                    "--arrivals", "constant", "--json", "--output", "8"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            while len(server.bodies) < 32:
                check(process.poll() is None, "it ended by itself")
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=20)
        finally:
            process.kill()
        check(process.returncode == 0, error)
        found = {json.loads(line)["case"].split(": ", 1)[1]: json.loads(line)["value"] for line in out.splitlines()}
        check(found["completed"] == 20, str(found))
        check(found["partial, unfinished when stopped"] >= 10 and found["failed"] == 0, str(found))
        check("partial" in error, error)


def sweep_and_trace_against_our_own_server():
    with Deployment(serve_words(BINARY, DEMO, threads=1)) as deployment, tempfile.TemporaryDirectory() as folder:
        url, svg = f"http://{deployment.http}/v1", os.path.join(folder, "sweep.svg")
        result = load(url, "--sweep", "20,40", "--count", "20", "--prompt", "40:60", "--output", "6:12", "--json",
                      "--ignore-eos", "--api", "completions", "--tokenizer", DEMO, "--svg", svg)
        cases = [json.loads(line) for line in result.stdout.splitlines()]
        for rate in (20, 40):
            done = [row["value"] for row in cases if row["case"].startswith(f"poisson {rate}/s")
                    and row["case"].endswith(": completed")]
            check(done == [20], str(done))
        check(len(list(xml.etree.ElementTree.parse(svg).getroot())) == 3, "three charts")
        # chat, with lengths that the server itself counts
        table = os.path.join(folder, "run.csv")
        load(url, "--rate", "50", "--count", "20", "--prompt", "100", "--output", "10", "--ignore-eos", "--csv", table)
        with open(table, encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        check(all(line["outcome"] == "ok" and line["output_tokens"] == "10" for line in lines), str(lines))
        mean = sum(int(line["prompt_tokens"]) for line in lines) / len(lines)
        check(85 <= mean <= 115, f"prompts of {mean} tokens on average, 100 were asked for")
        # an own trace, with tokens that are exact
        trace = os.path.join(folder, "own.jsonl")
        with open(trace, "w", encoding="utf-8") as file:
            for i in range(10):
                file.write(json.dumps({"at_ms": 20 * i, "prompt_tokens": 30 + i, "output_tokens": 5 + i,
                                       "prefix": [1], "prefix_block_tokens": 16}) + "\n")
        load(url, "--trace", trace, "--api", "completions", "--tokenizer", DEMO, "--ignore-eos", "--csv", table)
        with open(table, encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        check([int(line["output_tokens"]) for line in lines] == [5 + i for i in range(10)], str(lines))
        # our own server may add one token in front of a prompt of ids
        got = [int(line["prompt_tokens"]) - 30 - i for i, line in enumerate(lines)]
        check(got in ([0] * 10, [1] * 10), str(got))
        # and through a Unix socket that nobody serves
        error = load(url, "--unix", os.path.join(folder, "none"), "--rate", "1", code=1).stderr
        check("no connection" in error and os.path.join(folder, "none") in error, error)


def unix_sockets():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "s")
        with UnixFakeServer(path):
            text = load("http://localhost/v1", "--unix", path, "--rate", "50", "--count", "10", "--output", "3").stdout
            check("10 of 10 completed" in text and path in text, text)


def usage_errors_name_what_would_be_right():
    for words, part in ((["--rate", "x"], "a number from"), (["--prompt", "9:3", "--rate", "1"], "MIN:MAX"),
                        (["--sweep", "1,,2"], "commas"), (["--warm-up", "5m", "--rate", "1"], "10s"),
                        (["--arrivals", "even"], "poisson, gamma or constant"), ([], "--rate"),
                        (["--rate", "1", "--frequency", "2"], "--frequency"),
                        (["--rate", "1", "--tokenizer", DEMO], "--api completions"),
                        (["--rate", "1", "--key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY"), (["--rate"], "needs a value")):
        error = load("http://127.0.0.1:9/v1", *words, code=2).stderr
        check(part in error and error.startswith("spillway bench load: "), f"{words}: {error}")
    help_text = subprocess.run([BINARY, "bench", "load", "--help"], capture_output=True, text=True).stdout
    check("usage: spillway bench load" in help_text and "--concurrency-max" in help_text, help_text)


if __name__ == "__main__":
    harness.main([exact_counts_and_standard_fields, equal_seeds_ask_the_same, token_ids_are_exact,
                  a_stall_is_in_the_latency_of_all_who_were_due, failures_are_counted_by_kind, servers_that_say_less,
                  interrupt_shows_what_there_is, sweep_and_trace_against_our_own_server,
                  unix_sockets, usage_errors_name_what_would_be_right])
