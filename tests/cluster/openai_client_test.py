#!/usr/bin/env python3
"""The official `openai` package against a running deployment.

    openai_client_test.py http://HOST:PORT

Needs `pip install openai`. Every check runs and is counted; the last line is 'N passed, N failed', and the
exit code says the same. It assumes nothing of the model but a chat template and greedy answers that
repeat (C1), so it runs against any deployment.
"""

import concurrent.futures
import json
import sys
import traceback
import urllib.error
import urllib.request

import openai

CHAT = [{"role": "user", "content": "Tell me about a small boat."}]
PROMPT = "Once upon a time"
CONCURRENT = 32


class Fixture:
    def __init__(self, url):
        self.url = url.rstrip("/")
        self.client = openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0, timeout=120)
        self.model = self.client.models.list().data[0].id

    def chat(self, **more):
        given = dict(model=self.model, messages=CHAT, max_tokens=24, temperature=0, seed=1)
        return self.client.chat.completions.create(**{**given, **more})

    def complete(self, **more):
        given = dict(model=self.model, prompt=PROMPT, max_tokens=24, temperature=0, seed=1)
        return self.client.completions.create(**{**given, **more})

    def post(self, path, body, headers=None):
        """Status, headers, JSON of a plain POST: for what the package would not send."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.headers, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.headers, json.load(error)


def equal(a, b):
    assert a == b, f"{a!r} is not {b!r}"


def refused(call, kind, status, code):
    try:
        call()
    except kind as error:
        equal(error.status_code, status)
        equal(error.code, code)
        assert error.request_id is None or isinstance(error.request_id, str)
        return error
    raise AssertionError(f"not refused: {kind.__name__} expected")


def test_models(f):
    models = f.client.models.list()
    equal(models.object, "list")
    equal([m.object for m in models.data], ["model"])
    equal(f.client.models.retrieve(f.model).id, f.model)
    refused(lambda: f.client.models.retrieve("no-such-model"), openai.NotFoundError, 404,
            "model_not_found")


def test_chat(f):
    answer = f.chat()
    equal(answer.object, "chat.completion")
    equal(answer.model, f.model)
    assert answer.id.startswith("chatcmpl-")
    equal(len(answer.choices), 1)
    choice = answer.choices[0]
    equal(choice.index, 0)
    equal(choice.message.role, "assistant")
    assert choice.finish_reason in ("stop", "length")
    assert choice.message.content
    assert choice.logprobs is None
    assert 1 <= answer.usage.completion_tokens <= 24
    equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)


def test_chat_stream(f):
    whole = f.chat()
    chunks = list(f.chat(stream=True, stream_options={"include_usage": True}))
    equal({c.object for c in chunks}, {"chat.completion.chunk"})
    equal(len({c.id for c in chunks}), 1)
    equal(chunks[0].choices[0].delta.role, "assistant")
    *body, last = chunks
    equal(last.choices, [])
    equal(last.usage.model_dump(), whole.usage.model_dump())
    assert all(c.usage is None for c in body)
    equal("".join(c.choices[0].delta.content or "" for c in body), whole.choices[0].message.content)
    equal([c.choices[0].finish_reason for c in body if c.choices[0].finish_reason],
          [whole.choices[0].finish_reason])


def test_chat_logprobs(f):
    answer = f.chat(logprobs=True, top_logprobs=3, extra_body={"return_token_ids": True})
    content = answer.choices[0].logprobs.content
    ids = answer.choices[0].model_extra["token_ids"]
    equal(len(content), answer.usage.completion_tokens)
    equal(len(ids), len(content))
    for entry in content:
        equal(len(entry.top_logprobs), 3)
        assert entry.logprob <= 0
        assert entry.bytes is not None
        values = [t.logprob for t in entry.top_logprobs]
        equal(values, sorted(values, reverse=True))
    streamed = []
    for chunk in f.chat(logprobs=True, top_logprobs=3, stream=True):
        if chunk.choices and chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    equal([e.model_dump() for e in streamed], [e.model_dump() for e in content])


def test_completion(f):
    answer = f.complete()
    equal(answer.object, "text_completion")
    assert answer.id.startswith("cmpl-")
    assert answer.choices[0].text
    text = "".join(c.choices[0].text for c in f.complete(stream=True))
    equal(text, answer.choices[0].text)


def test_completion_default_length(f):
    answer = f.client.completions.create(model=f.model, prompt=PROMPT, extra_body={"ignore_eos": True})
    equal(answer.usage.completion_tokens, 16)
    equal(answer.choices[0].finish_reason, "length")


def test_completion_token_ids(f):
    status, _, tokens = f.post("/tokenize", {"model": f.model, "prompt": PROMPT})
    equal(status, 200)
    ids = tokens["tokens"]
    equal(tokens["count"], len(ids))
    assert tokens["max_model_len"] > len(ids)
    from_text = f.complete(extra_body={"return_token_ids": True})
    equal(from_text.choices[0].model_extra["prompt_token_ids"], ids)
    from_ids = f.complete(prompt=ids, extra_body={"return_token_ids": True})
    equal(from_ids.choices[0].text, from_text.choices[0].text)
    answer_ids = from_ids.choices[0].model_extra["token_ids"]
    equal(answer_ids, from_text.choices[0].model_extra["token_ids"])
    equal(len(answer_ids), from_ids.usage.completion_tokens)
    streamed = []
    for chunk in f.complete(prompt=[ids], stream=True, extra_body={"return_token_ids": True}):
        streamed += chunk.choices[0].model_extra.get("token_ids") or []
    equal(streamed, answer_ids)


def test_completion_logprobs(f):
    answer = f.complete(logprobs=2)
    logprobs = answer.choices[0].logprobs
    count = answer.usage.completion_tokens
    equal([len(logprobs.tokens), len(logprobs.token_logprobs), len(logprobs.top_logprobs),
           len(logprobs.text_offset)], [count] * 4)
    equal(logprobs.text_offset, sorted(logprobs.text_offset))
    equal(logprobs.text_offset[0], 0)
    assert all(v <= 0 for v in logprobs.token_logprobs)


def test_detokenize(f):
    text = "Hello, wörld 🚣"
    _, _, tokens = f.post("/tokenize", {"prompt": text, "add_special_tokens": False})
    _, _, back = f.post("/detokenize", {"tokens": tokens["tokens"]})
    equal(back["prompt"], text)


def test_stop(f):
    whole = f.complete(extra_body={"ignore_eos": True})
    text = whole.choices[0].text
    stop = text[len(text) // 2:len(text) // 2 + 3]
    assert stop
    cut = f.complete(stop=[stop], extra_body={"ignore_eos": True})
    equal(cut.choices[0].text, text[:text.index(stop)])
    equal(cut.choices[0].finish_reason, "stop")
    equal(cut.choices[0].model_extra["stop_reason"], stop)
    streamed = "".join(c.choices[0].text for c in
                       f.complete(stop=stop, stream=True, extra_body={"ignore_eos": True}))
    equal(streamed, cut.choices[0].text)


def test_seed_and_temperature(f):
    first = f.chat(temperature=1.0, seed=7, extra_body={"top_k": 50})
    again = f.chat(temperature=1.0, seed=7, extra_body={"top_k": 50})
    equal(first.choices[0].message.content, again.choices[0].message.content)


def test_content_parts(f):
    parts = [{"role": "user", "content": [{"type": "text", "text": CHAT[0]["content"]}]}]
    equal(f.chat(messages=parts).choices[0].message.content, f.chat().choices[0].message.content)


def test_harmless_fields(f):
    f.chat(user="somebody", n=1, presence_penalty=0, frequency_penalty=0, store=False,
           metadata={"a": "b"}, response_format={"type": "text"}, parallel_tool_calls=True)


def test_answer_headers(f):
    raw = f.client.chat.completions.with_raw_response.create(
        model=f.model, messages=CHAT, max_tokens=2,
        extra_headers={"X-Spillway-Priority": "high", "X-Spillway-Deadline-Ms": "60000"})
    for name in ("X-Spillway-Site", "X-Spillway-Request-Id", "X-Spillway-Engine"):
        assert raw.headers.get(name), name
    equal(raw.parse().id, "chatcmpl-" + raw.headers["X-Spillway-Request-Id"])


def test_refusals(f):
    bad = openai.BadRequestError
    refused(lambda: f.chat(model="no-such-model"), openai.NotFoundError, 404, "model_not_found")
    refused(lambda: f.chat(messages=[]), bad, 400, "invalid_type")
    refused(lambda: f.chat(temperature=-1), bad, 400, "invalid_value")
    refused(lambda: f.chat(max_tokens=0), bad, 400, "invalid_value")
    refused(lambda: f.chat(stop=[str(i) for i in range(17)]), bad, 400, "invalid_value")
    equal(refused(lambda: f.chat(n=2), bad, 400, "unsupported").param, "n")
    equal(refused(lambda: f.chat(frequency_penalty=1), bad, 400, "unsupported").param,
          "frequency_penalty")
    equal(refused(lambda: f.chat(response_format={"type": "json_object"}), bad, 400,
                  "unsupported").param, "response_format")
    equal(refused(lambda: f.chat(extra_body={"max_tokns": 3}), bad, 400, "unknown_parameter").param,
          "max_tokns")
    refused(lambda: f.complete(prompt="word " * 200000, max_tokens=1), openai.APIStatusError,
            *((413, "request_too_large") if too_large(f) else (400, "context_length_exceeded")))
    refused(lambda: f.complete(max_tokens=2**30), bad, 400, "context_length_exceeded")
    refused(lambda: f.complete(prompt=[1, 2**30]), bad, 400, "invalid_value")
    refused(lambda: f.complete(prompt=["a", "b"]), bad, 400, "unsupported")


def too_large(f):
    status, _, _ = f.post("/tokenize", {"prompt": "word " * 200000})
    return status == 413


def test_plain_refusals(f):
    status, _, answer = f.post("/v1/completions", b'{"prompt": ')
    equal((status, answer["error"]["code"]), (400, "invalid_json"))
    assert "line 1" in answer["error"]["message"]
    status, _, answer = f.post("/v1/completions", b'{"prompt": "\xff"}')
    equal((status, answer["error"]["code"]), (400, "invalid_utf8"))
    status, _, answer = f.post("/v1/nothing", {})
    equal((status, answer["error"]["code"]), (404, "not_found"))
    status, headers, answer = f.post("/v1/models", {})
    equal((status, answer["error"]["code"]), (405, "method_not_allowed"))
    assert "GET" in headers["Allow"]


def test_endpoints(f):
    for path, part in (("/health", "healthy"), ("/ready", "ready"), ("/metrics", "spillway_"),
                       ("/status", "ranks"), ("/", "Spillway")):
        with urllib.request.urlopen(f.url + path, timeout=30) as answer:
            equal(answer.status, 200)
            assert part in answer.read().decode(), path


def test_leaving_a_stream(f):
    for _ in range(8):
        stream = f.complete(stream=True, max_tokens=200, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
    assert f.complete().choices[0].text  # and it still serves


def test_concurrent_streams(f):
    prompts = [f"Number {i} is" for i in range(CONCURRENT)]
    alone = [f.complete(prompt=p).choices[0].text for p in prompts]

    def ask(prompt):
        return "".join(c.choices[0].text for c in f.complete(prompt=prompt, stream=True))

    with concurrent.futures.ThreadPoolExecutor(CONCURRENT) as pool:
        equal(list(pool.map(ask, prompts)), alone)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    fixture = Fixture(sys.argv[1])
    passed = failed = 0
    for name, test in sorted(globals().items()):
        if not name.startswith("test_"):
            continue
        try:
            test(fixture)
            passed += 1
            print("ok    ", name, flush=True)
        except Exception:  # every check is counted
            failed += 1
            print("FAILED", name, flush=True)
            traceback.print_exc()
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
