#!/usr/bin/env python3
"""A gRPC client written only from the .proto files, against a live server.

usage: grpc_client_test.py ADDRESS [--proto DIR] [--expect TEXT] [--prompt TEXT] [--streams N]
                           [--ca FILE [--cert FILE --key FILE]]

ADDRESS is host:port or unix:/path. Needs grpcio and grpcio-tools (and nothing of Spillway but proto/). With
--expect, the greedy answer to --prompt must begin with that text. Prints "N passed, N failed".
"""
import argparse
import importlib
import os
import sys
import tempfile
import threading
import time

import grpc
from grpc_tools import protoc

TIMEOUT = 60


def load(folder):
    """The messages and stubs, generated into a folder that is thrown away."""
    out = tempfile.mkdtemp(prefix="spillway-proto-")
    files = ["spillway.proto", "grpc/health/v1/health.proto", "grpc/reflection/v1/reflection.proto"]
    # grpc/ would hide the grpc package: those two are compiled under other names
    stage = tempfile.mkdtemp(prefix="spillway-stage-")
    names = []
    for name in files:
        flat = os.path.basename(name)
        with open(os.path.join(folder, name)) as source, open(os.path.join(stage, flat), "w") as copy:
            copy.write(source.read())
        names.append(flat)
    for name in names:
        code = protoc.main(["protoc", "-I", stage, "--python_out=" + out, "--grpc_python_out=" + out,
                            os.path.join(stage, name)])
        if code != 0:
            sys.exit("protoc failed on " + name)
    sys.path.insert(0, out)
    modules = {}
    for name in names:
        base = name[:-len(".proto")]
        modules[base] = (importlib.import_module(base + "_pb2"), importlib.import_module(base + "_pb2_grpc"))
    return modules


class Checks:
    def __init__(self):
        self.passed = self.failed = 0

    def run(self, name, function):
        try:
            function()
        except Exception as error:  # noqa: BLE001 - every failure is reported and counted
            self.failed += 1
            print("FAIL %s: %s: %s" % (name, type(error).__name__, error))
        else:
            self.passed += 1
            print("ok   %s" % name)


def expect(condition, words):
    if not condition:
        raise AssertionError(words)


def expect_code(code, call):
    try:
        call()
    except grpc.RpcError as error:
        expect(error.code() == code, "%s instead of %s: %s" % (error.code(), code, error.details()))
        expect(error.details(), "an error without words")
        return error
    raise AssertionError("no error, but %s was due" % code)


class Answer:
    """A stream of GenerateResponse, put together and checked for its form."""

    def __init__(self, stream):
        self.text, self.ids, self.logprobs, self.alternatives = "", [], [], []
        self.finish, self.first = None, None
        for message in stream:
            expect(self.finish is None, "a message after the last one")
            if self.first is None:
                self.first = message
                expect(message.request_id, "no request id in the first message")
            else:
                expect(not message.request_id, "a request id in a later message")
            self.text += message.text
            for token in message.tokens:
                self.ids.append(token.id)
                self.logprobs.append(token.logprob)
                self.alternatives.append([(a.id, a.logprob) for a in token.alternatives])
            if message.HasField("finish"):
                self.finish = message.finish
        expect(self.finish is not None, "no last message with `finish`")
        expect(self.finish.usage.output_tokens == len(self.ids), "usage counts %d tokens, %d came"
               % (self.finish.usage.output_tokens, len(self.ids)))


def main():
    parser = argparse.ArgumentParser(description="gRPC client test")
    parser.add_argument("address")
    parser.add_argument("--proto", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../proto"))
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--expect", default=None)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--ca")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    options = parser.parse_args()

    modules = load(options.proto)
    pb, stubs = modules["spillway"]
    health_pb, health_stubs = modules["health"]
    reflection_pb, reflection_stubs = modules["reflection"]
    if options.ca:
        def read(path):
            return open(path, "rb").read() if path else None
        credentials = grpc.ssl_channel_credentials(read(options.ca), read(options.key), read(options.cert))
        channel = grpc.secure_channel(options.address, credentials)
    else:
        channel = grpc.insecure_channel(options.address)
    grpc.channel_ready_future(channel).result(timeout=TIMEOUT)
    api = stubs.SpillwayStub(channel)
    checks = Checks()
    check = checks.run

    def request(**fields):
        fields.setdefault("text", options.prompt)
        fields.setdefault("max_tokens", 16)
        fields.setdefault("ignore_eos", True)
        if "tokens" in fields or "chat" in fields:
            fields.pop("text")
        made = pb.GenerateRequest(**fields)
        if not made.HasField("sampling"):
            made.sampling.temperature = 0
        return made

    def generate(**fields):
        return Answer(api.Generate(request(**fields), timeout=TIMEOUT))

    models = api.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT).models
    model = models[0]

    def list_models():
        expect(len(models) == 1 and model.name, "no model")
        expect(len(model.digest) == 64 and model.engine_class, "no digest or engine class")
        expect(model.context_tokens > 0 and model.vocab > 0, "no sizes")

    def greedy():
        answer = generate()
        expect(len(answer.ids) == 16, "%d tokens" % len(answer.ids))
        expect(answer.finish.reason == pb.FINISH_REASON_LENGTH, "reason %d" % answer.finish.reason)
        expect(answer.first.site and answer.first.engine_class == model.engine_class, "no site or class")
        expect(answer.first.model_digest == model.digest, "another digest")
        if options.expect is not None:
            longer = generate(max_tokens=128)
            expect(longer.text.startswith(options.expect), "answer is %r" % longer.text)

    def repeatable():
        first, second = generate(logprobs=True), generate(logprobs=True)
        expect(first.ids == second.ids and first.logprobs == second.logprobs, "the same request, another answer")
        expect(all(logprob <= 0 for logprob in first.logprobs) and any(first.logprobs), "no log-probabilities")

    def alternatives():
        answer = generate(logprobs=True, top_logprobs=5)
        expect(all(len(each) == 5 for each in answer.alternatives), "not five alternatives each")
        for each in answer.alternatives:
            values = [logprob for _, logprob in each]
            expect(values == sorted(values, reverse=True), "alternatives are not in order")

    def ids_in():
        ids = list(api.Tokenize(pb.TokenizeRequest(text=options.prompt), timeout=TIMEOUT).ids)
        by_ids, by_text = generate(tokens=pb.TokenIds(ids=ids)), generate()
        expect(by_ids.ids == by_text.ids, "ids and text give different answers")
        expect(by_text.finish.usage.prompt_tokens == len(ids), "prompt tokens are counted otherwise")

    def round_trip():
        text = "Hello, world! \u00e9\u20ac\U0001f600 2024"
        ids = list(api.Tokenize(pb.TokenizeRequest(text=text, skip_add_special=True), timeout=TIMEOUT).ids)
        expect(len(ids) > 0, "no ids")
        back = api.Detokenize(pb.DetokenizeRequest(ids=ids, skip_special=True), timeout=TIMEOUT).text
        expect(back.strip() == text, "came back as %r" % back)

    def sampling():
        def drawn(seed):
            return generate(sampling=pb.Sampling(temperature=1.0, seed=seed), max_tokens=24).ids
        expect(drawn(7) == drawn(7), "one seed, two answers")

    def stop_string():
        whole = generate(max_tokens=32)
        text = whole.text
        middle = len(text) // 2
        stop = text[middle:middle + 3]
        expect(len(stop) == 3, "the answer is too short for this check: %r" % text)
        answer = generate(max_tokens=32, stop=[stop])
        expect(answer.finish.reason == pb.FINISH_REASON_STOP and answer.finish.stop == stop, "did not stop")
        expect(answer.text == text[:text.index(stop)], "shown: %r of %r" % (answer.text, text))

    def stop_token():
        whole = generate(max_tokens=8)
        answer = generate(max_tokens=8, stop_token_ids=[whole.ids[3]])
        expect(answer.ids == whole.ids[:whole.ids.index(whole.ids[3]) + 1], "did not stop at the token")
        expect(answer.finish.reason == pb.FINISH_REASON_STOP, "reason %d" % answer.finish.reason)

    def chat():
        talk = pb.Chat(messages=[pb.ChatMessage(role="user", content="Hello")])
        try:
            answer = generate(chat=talk, max_tokens=4)
        except grpc.RpcError as error:
            expect(error.code() == grpc.StatusCode.UNIMPLEMENTED and "chat" in error.details(), str(error))
            return
        ids = api.Tokenize(pb.TokenizeRequest(chat=talk), timeout=TIMEOUT).ids
        expect(len(ids) == answer.finish.usage.prompt_tokens, "Tokenize counts otherwise than Generate")

    def refusals():
        code = grpc.StatusCode
        bad = [
            (code.NOT_FOUND, dict(model="no-such-model")),
            (code.INVALID_ARGUMENT, dict(priority=9)),
            (code.INVALID_ARGUMENT, dict(logprobs=True, top_logprobs=21)),
            (code.INVALID_ARGUMENT, dict(stop=["x"] * 17)),
            (code.INVALID_ARGUMENT, dict(stop=[""])),
            (code.INVALID_ARGUMENT, dict(tokens=pb.TokenIds(ids=[model.vocab + 1000]))),
            (code.INVALID_ARGUMENT, dict(tokens=pb.TokenIds())),
            (code.INVALID_ARGUMENT, dict(sampling=pb.Sampling(temperature=-1))),
            (code.INVALID_ARGUMENT, dict(sampling=pb.Sampling(top_p=2))),
            (code.OUT_OF_RANGE, dict(max_tokens=model.context_tokens + 1)),
            (code.OUT_OF_RANGE, dict(tokens=pb.TokenIds(ids=[1] * (model.context_tokens + 1)))),
        ]
        for wanted, fields in bad:
            expect_code(wanted, lambda: generate(**fields))
        expect_code(code.INVALID_ARGUMENT, lambda: Answer(api.Generate(pb.GenerateRequest(), timeout=TIMEOUT)))
        expect_code(code.INVALID_ARGUMENT,
                    lambda: api.Detokenize(pb.DetokenizeRequest(ids=[-1]), timeout=TIMEOUT))
        raw = channel.unary_unary("/spillway.v1.Spillway/Nothing", lambda x: x, lambda x: x)
        expect_code(code.UNIMPLEMENTED, lambda: raw(b"", timeout=TIMEOUT))
        raw = channel.unary_unary("/spillway.v1.Spillway/Tokenize", lambda x: x, lambda x: x)
        expect_code(code.INVALID_ARGUMENT, lambda: raw(b"\xff\xff\xff", timeout=TIMEOUT))

    def compression():
        packed = channel.unary_unary("/spillway.v1.Spillway/Tokenize", pb.TokenizeRequest.SerializeToString,
                                     pb.TokenizeResponse.FromString)
        expect_code(grpc.StatusCode.UNIMPLEMENTED,
                    lambda: packed(pb.TokenizeRequest(text="a" * 5000), timeout=TIMEOUT,
                                   compression=grpc.Compression.Gzip))

    def deadline():
        # far more tokens than any machine makes in this time
        expect_code(grpc.StatusCode.DEADLINE_EXCEEDED,
                    lambda: [None for _ in api.Generate(request(max_tokens=model.context_tokens // 2), timeout=0.02)])

    def cancel():
        stream = api.Generate(request(max_tokens=model.context_tokens // 2), timeout=TIMEOUT)
        first = next(stream)
        found = api.Cancel(pb.CancelRequest(request_id=first.request_id), timeout=TIMEOUT).found
        rest = list(stream)
        if found:
            expect(rest[-1].finish.reason == pb.FINISH_REASON_CANCELLED, "it went on")
        else:
            expect(rest[-1].finish.reason == pb.FINISH_REASON_LENGTH, "neither found nor finished")
        expect(not api.Cancel(pb.CancelRequest(request_id=first.request_id), timeout=TIMEOUT).found, "found twice")
        expect(not api.Cancel(pb.CancelRequest(request_id="nothing"), timeout=TIMEOUT).found, "found nothing")

    def status():
        state = api.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT)
        expect(state.ready and state.healthy, "not ready or not healthy")
        expect(len(state.ranks) >= 1 and state.ranks[0].role, "no ranks")
        expect(state.json.startswith("{"), "no JSON")

    def goes_away():
        """A client that leaves: its requests are no longer running soon after."""
        stream = api.Generate(request(max_tokens=model.context_tokens // 2), timeout=TIMEOUT)
        next(stream)
        stream.cancel()
        end = time.time() + 10
        while True:
            state = api.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT)
            if state.requests_running == 0:
                return
            expect(time.time() < end, "%d requests still run" % state.requests_running)
            time.sleep(0.1)

    def many():
        alone = [generate(text="%s %d" % (options.prompt, i), logprobs=True) for i in range(options.streams)]
        together = [None] * options.streams
        errors = []

        def one(i):
            try:
                together[i] = generate(text="%s %d" % (options.prompt, i), logprobs=True)
            except Exception as error:  # noqa: BLE001
                errors.append(error)
        threads = [threading.Thread(target=one, args=(i,)) for i in range(options.streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expect(not errors, "%d failed: %s" % (len(errors), errors[:1]))
        for i in range(options.streams):
            expect(together[i].ids == alone[i].ids and together[i].logprobs == alone[i].logprobs,
                   "stream %d differs from the same request alone" % i)

    def health():
        stub = health_stubs.HealthStub(channel)
        ask = health_pb.HealthCheckRequest
        for service in ("", "spillway.v1.Spillway"):
            answer = stub.Check(ask(service=service), timeout=TIMEOUT)
            expect(answer.status == health_pb.HealthCheckResponse.SERVING, "%r does not serve" % service)
        expect_code(grpc.StatusCode.NOT_FOUND, lambda: stub.Check(ask(service="other"), timeout=TIMEOUT))
        watch = stub.Watch(ask(service="other"), timeout=TIMEOUT)
        expect(next(watch).status == health_pb.HealthCheckResponse.SERVICE_UNKNOWN, "Watch knows what is not there")
        watch.cancel()

    def reflection():
        stub = reflection_stubs.ServerReflectionStub(channel)
        question = reflection_pb.ServerReflectionRequest
        from google.protobuf import descriptor_pb2
        asked = [question(list_services=""), question(file_containing_symbol="spillway.v1.Spillway.Generate"),
                 question(file_by_filename="spillway.proto"), question(file_containing_symbol="no.such.Symbol")]
        answers = list(stub.ServerReflectionInfo(iter(asked), timeout=TIMEOUT))
        expect(len(answers) == 4, "%d answers" % len(answers))
        services = [each.name for each in answers[0].list_services_response.service]
        expect(set(services) >= {"spillway.v1.Spillway", "grpc.health.v1.Health",
                                 "grpc.reflection.v1.ServerReflection",
                                 "grpc.reflection.v1alpha.ServerReflection"}, str(services))
        described = [descriptor_pb2.FileDescriptorProto.FromString(each.file_descriptor_response.file_descriptor_proto[0])
                     for each in answers[1:3]]
        expect(described[0] == described[1], "two descriptors of one file")
        own = descriptor_pb2.FileDescriptorProto()
        pb.DESCRIPTOR.CopyToProto(own)
        for each in (own, described[0]):
            each.ClearField("source_code_info")
            for message in each.message_type:  # json_name is there or not, depending on the generator
                for field in message.field:
                    field.ClearField("json_name")
        expect(own == described[0], "the server describes another API than the .proto")
        expect(answers[3].error_response.error_code == 5, "found what is not there")

    for name, function in [
            ("ListModels", list_models), ("Generate, greedy", greedy), ("Generate twice", repeatable),
            ("alternatives", alternatives), ("token ids in", ids_in), ("Tokenize and Detokenize", round_trip),
            ("sampling", sampling), ("stop string", stop_string), ("stop token", stop_token), ("chat", chat),
            ("refusals", refusals), ("compression", compression), ("deadline", deadline), ("Cancel", cancel),
            ("GetStatus", status), ("client goes away", goes_away),
            ("%d streams" % options.streams, many), ("health", health), ("reflection", reflection)]:
        check(name, function)
    channel.close()
    print("%d passed, %d failed" % (checks.passed, checks.failed))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
