"""One answer (C1): recorded ids, and equal logit bits in every layout, chunking, batch and kind of start.

usage: golden_test.py SPILLWAY [--full] [--expect-failure]

For each model the greedy ids must be the recorded ones; the digest over all logits of an answer must be the
same as in a single process alone. --expect-failure is for a build with a planted wrong summation order: the
test succeeds if the difference is found.
"""
import concurrent.futures
import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "cluster"))
import harness  # noqa: E402
from harness import Deployment, Failure, check, serve_words  # noqa: E402

LAYOUTS = [(1, 1), (2, 1), (4, 1), (1, 5), (2, 2), (4, 5)]
CHUNKS = [1, 7, 64, 512]
STEPS = 256


class Case:
    """A model with recorded answers: list of (prompt ids, answer ids)."""

    def __init__(self, name, folder, answers, layers, others):
        self.name, self.folder, self.answers, self.layers, self.others = (
            name, folder, answers, layers, others)

    def __repr__(self):
        return self.name


def load_cases():
    cases = []
    with open(os.path.join(harness.DEMO, "golden.json")) as file:
        recorded = json.load(file)["cases"]
    answers = [(case["prompt_token_ids"], case["token_ids"]) for case in recorded]
    others = [prompt + answer[:20 + 3 * i] for i, (prompt, answer) in enumerate(answers * 3)][:16]
    cases.append(Case("demo-model", harness.DEMO, answers, 4, others))
    for name in ("stories260K", "llama2xs"):
        folder = os.path.join(harness.SHARED, "models", name)
        if not os.path.isdir(folder):
            print(f"skipped: {name}: no ../shared/data beside this checkout", flush=True)
            continue
        with open(os.path.join(folder, "golden_greedy.json")) as file:
            golden = json.load(file)
        ids = golden["prompt_token_ids"] + golden["token_ids"]
        begin = len(golden["prompt_token_ids"])
        if golden["token_ids"][:begin] == golden["prompt_token_ids"]:
            ids, begin = golden["token_ids"], begin  # the record begins with its prompt
        answer = ids[begin:]
        # 16 different prompts: cuts of the record, of 8 to 188 tokens
        others = [ids[:8 + 12 * i] for i in range(16)]
        cases.append(Case(name, folder, [(ids[:begin], answer)], 5, others))
    return cases


def room(case, prompt):
    """How many tokens the context leaves; the last one takes no place in it."""
    with open(os.path.join(case.folder, "config.json")) as file:
        return json.load(file)["max_position_embeddings"] - len(prompt) + 1


def answers_alone(deployment, case):
    """The recorded answers, one after the other: list of (ids, logprobs, request id)."""
    results = []
    for prompt, answer in case.answers:
        tokens = min(len(answer), room(case, prompt))
        ids, logprobs, request = deployment.complete(prompt, tokens)
        check(ids == answer[:tokens], f"{case}: ids differ from the record at token "
              f"{next((i for i, (a, b) in enumerate(zip(ids, answer)) if a != b), len(ids))}")
        results.append((ids, logprobs, request))
    return results


def answers_together(deployment, case):
    """The 16 others at once, in one batch."""
    with concurrent.futures.ThreadPoolExecutor(len(case.others)) as pool:
        return list(pool.map(lambda prompt: deployment.complete(prompt, min(40, room(case, prompt))),
                             case.others))


def with_digests(deployment, results):
    """The log comes through mpirun and may be a moment late."""
    for _ in range(100):
        digests = deployment.digests()
        if all(request in digests for _, _, request in results):
            break
        time.sleep(0.05)
    return [(ids, logprobs, digests[request]) for ids, logprobs, request in results]


def reference(binary, case, dtype):
    """Single process, each request alone."""
    words = serve_words(binary, case.folder, dtype=dtype, record_logits=True)
    with Deployment(words) as deployment:
        alone = answers_alone(deployment, case) if dtype == "f32" else []
        others = [deployment.complete(prompt, min(40, room(case, prompt))) for prompt in case.others]
        return with_digests(deployment, alone), with_digests(deployment, others)


def compare(where, got, wanted):
    for i, (a, b) in enumerate(zip(got, wanted)):
        check(a[0] == b[0], f"{where}: answer {i}: ids differ")
        check(a[1] == b[1], f"{where}: answer {i}: log-probabilities differ")
        check(a[2] == b[2], f"{where}: answer {i}: logits differ: {a[2]} against {b[2]}")
    check(len(got) == len(wanted), f"{where}: {len(got)} answers, {len(wanted)} wanted")


def one(binary, case, dtype, tensor, pipeline, chunk, many, wanted):
    where = (f"{case} {dtype} tensor {tensor} pipeline {pipeline} chunk {chunk} "
             f"{'mpirun' if many else 'one process'}")
    words = serve_words(binary, case.folder, tensor, pipeline, many=many, dtype=dtype,
                        prefill_chunk=chunk, record_logits=True)
    with Deployment(words) as deployment:
        alone = answers_alone(deployment, case) if dtype == "f32" else []
        together = answers_together(deployment, case)
        compare(where + " alone", with_digests(deployment, alone), wanted[0])
        compare(where + " batch of 16", with_digests(deployment, together), wanted[1])
    print(f"equal: {where}", flush=True)


def plan(full):
    """(tensor, pipeline, chunk, many): every layout under mpirun, every chunk; all pairs with --full."""
    runs = []
    for i, (tensor, pipeline) in enumerate(LAYOUTS):
        for j, chunk in enumerate(CHUNKS):
            if full or j == i % len(CHUNKS):
                runs.append((tensor, pipeline, chunk, True))
    for chunk in CHUNKS:
        runs.append((1, 1, chunk, False))
    runs.append((2, 2, 7, False))
    return runs


def run(binary, full):
    for case in load_cases():
        for dtype in ("f32", "bf16"):
            wanted = reference(binary, case, dtype)
            for tensor, pipeline, chunk, many in plan(full):
                if pipeline > case.layers:
                    pipeline = case.layers
                if dtype == "bf16" and (not full and (tensor, pipeline) not in ((2, 2), (4, 1))):
                    continue
                one(binary, case, dtype, tensor, pipeline, chunk, many, wanted)


def main():
    binary = sys.argv[1]
    full = "--full" in sys.argv
    if "--expect-failure" not in sys.argv:
        try:
            run(binary, full)
        except (Failure, KeyError) as error:
            print(f"FAIL {error}\n0 passed, 1 failed", flush=True)
            sys.exit(1)
        print("1 passed, 0 failed", flush=True)
        return
    case = load_cases()[0]
    wanted = reference(binary, case, "f32")
    try:
        one(binary, case, "f32", 2, 1, 64, False, wanted)
    except Failure as error:
        check("differ" in str(error), f"failed for another reason: {error}")
        print(f"the planted order was found: {error}\n1 passed, 0 failed", flush=True)
        return
    print("FAIL the planted summation order was not found\n0 passed, 1 failed", flush=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
