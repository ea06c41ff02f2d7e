"""Checks the exported folder with a second forward pass: plain numpy, float64, from the BF16 file.

    python check.py --model MODEL_DIR --data DIR [--prompts 60] [--golden] [--show N]

Prints, for held-out prompts decoded greedily through the chat template, how many answers are on the
subject and how many stop by themselves; with --golden also writes MODEL_DIR/golden.json. Shares no
code with train.py or model.py: the forward pass here keeps keys and values and goes token by token.
"""

import argparse
import json
import os
import re
import struct

import jinja2
import numpy as np
from tokenizers import Tokenizer

# Candidates for golden.json. The first four chats and two completions are taken in which the two best
# logits are never nearer than MIN_GAP, so that float32 arithmetic must give the same ids.
CHAT = ["Tell me a story about a cat and a river.", "What does a coordinator do?", "What is Spillway?", "What is 3 plus 4?",
        "Tell me a story about a dragon.", "Tell me about foxes.", "Write a poem about the moon.", "What is winter like?"]
TEXT = ["Once upon a time", "The capital of France is", "A fox in a forest", "Long ago, a small dragon"]
MIN_GAP = 2e-3



def read_safetensors(path):
    with open(path, "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(size))
        data = f.read()
    out = {}
    for name, t in header.items():
        if name == "__metadata__":
            continue
        assert t["dtype"] == "BF16"
        a, b = t["data_offsets"]
        bits = np.frombuffer(data[a:b], "<u2").astype(np.uint32) << 16
        out[name] = bits.view(np.float32).astype(np.float64).reshape(t["shape"])
    return out


class Llama:
    def __init__(self, folder):
        with open(os.path.join(folder, "config.json")) as f:
            c = self.c = json.load(f)
        self.w = read_safetensors(os.path.join(folder, "model.safetensors"))
        d = c["head_dim"]
        self.freq = 1.0 / c["rope_theta"] ** (np.arange(0, d, 2) / d)

    def norm(self, x, name):
        return x / np.sqrt(np.mean(x * x) + self.c["rms_norm_eps"]) * self.w[name]

    def turn(self, x, pos):
        """Rotates [heads, head_dim] in the rotate-half form."""
        cos, sin = (np.tile(f(pos * self.freq), 2) for f in (np.cos, np.sin))
        half = x.shape[1] // 2
        return x * cos + np.concatenate([-x[:, half:], x[:, :half]], axis=1) * sin

    def step(self, token, cache):
        c, w = self.c, self.w
        d, nh, nk = c["head_dim"], c["num_attention_heads"], c["num_key_value_heads"]
        pos = len(cache[0][0])
        x = w["model.embed_tokens.weight"][token].copy()
        for n in range(c["num_hidden_layers"]):
            p = f"model.layers.{n}."
            y = self.norm(x, p + "input_layernorm.weight")
            q = self.turn((w[p + "self_attn.q_proj.weight"] @ y).reshape(nh, d), pos)
            cache[n][0].append(self.turn((w[p + "self_attn.k_proj.weight"] @ y).reshape(nk, d), pos))
            cache[n][1].append((w[p + "self_attn.v_proj.weight"] @ y).reshape(nk, d))
            keys, values = np.array(cache[n][0]), np.array(cache[n][1])
            out = np.empty((nh, d))
            for h in range(nh):
                g = h // (nh // nk)
                s = keys[:, g] @ q[h] / np.sqrt(d)
                e = np.exp(s - s.max())
                out[h] = (e / e.sum()) @ values[:, g]
            x = x + w[p + "self_attn.o_proj.weight"] @ out.reshape(-1)
            y = self.norm(x, p + "post_attention_layernorm.weight")
            gate = w[p + "mlp.gate_proj.weight"] @ y
            x = x + w[p + "mlp.down_proj.weight"] @ (gate / (1 + np.exp(-gate)) * (w[p + "mlp.up_proj.weight"] @ y))
        return w["model.embed_tokens.weight"] @ self.norm(x, "model.norm.weight")

    def greedy(self, prompt, limit):
        """(ids, logits of each step); ends after the end token, which is the last id then."""
        cache = [([], []) for _ in range(self.c["num_hidden_layers"])]
        for t in prompt:
            logits = self.step(t, cache)
        ids, rows = [], []
        while True:
            rows.append(logits)
            ids.append(int(np.argmax(logits)))
            if ids[-1] == self.c["eos_token_id"] or len(ids) == limit:
                return ids, rows
            logits = self.step(ids[-1], cache)


def has(text, words):
    """Whether text contains words as whole words."""
    return re.search(r"(?<!\w)" + re.escape(words) + r"(?!\w)", text, re.IGNORECASE) is not None


def renderer(folder):
    with open(os.path.join(folder, "tokenizer_config.json")) as f:
        t = json.load(f)

    def fail(message):
        raise ValueError(message)

    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(t["chat_template"])
    return lambda messages: template.render(messages=messages, bos_token=t["bos_token"], eos_token=t["eos_token"],
                                            add_generation_prompt=True, raise_exception=fail)


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--model", required=True)
    ap.add_argument("--data", required=True)
    ap.add_argument("--prompts", type=int, default=60)
    ap.add_argument("--show", type=int, default=0)
    ap.add_argument("--golden", action="store_true")
    args = ap.parse_args()
    net, tok, render = Llama(args.model), Tokenizer.from_file(os.path.join(args.model, "tokenizer.json")), renderer(args.model)

    def chat_ids(question):
        text = render([{"role": "user", "content": question}])
        return text, tok.encode(text, add_special_tokens=False).ids

    def text_of(ids):
        return tok.decode(ids, skip_special_tokens=True)

    if args.golden:
        cases, narrowest, wanted = [], 1e9, {"chat": 4, "completion": 2}
        for kind, prompt in [("chat", p) for p in CHAT] + [("completion", p) for p in TEXT]:
            if not wanted[kind]:
                continue
            text, ids = chat_ids(prompt) if kind == "chat" else (prompt, tok.encode(prompt).ids)
            out, rows = net.greedy(ids, 96)
            order = [np.argsort(-r, kind="stable")[:5] for r in rows]
            gap = min(float(r[o[0]] - r[o[1]]) for r, o in zip(rows, order))
            if gap < MIN_GAP:
                print(f"passed over ({gap:.5f}): {prompt}")
                continue
            wanted[kind] -= 1
            narrowest = min(narrowest, gap)
            case = {"kind": kind, "prompt": text, "prompt_token_ids": ids, "token_ids": out, "text": text_of(out),
                    "smallest_top2_gap": round(gap, 6),
                    "top5": [[[int(k), round(float(r[k]), 8)] for k in o] for r, o in zip(rows[:16], order)]}
            if kind == "chat":
                case["messages"] = [{"role": "user", "content": prompt}]
            cases.append(case)
            print(f"golden {gap:.4f} {len(out)} tokens, {'ends' if out[-1] == net.c['eos_token_id'] else 'cut'}: {case['text']}")
        assert not any(wanted.values()), "more candidates are needed"
        with open(os.path.join(args.model, "golden.json"), "w") as f:
            f.write('{"arithmetic": "float64 on the bf16 weights", "max_tokens": 96, "cases": [\n')
            f.write(",\n".join(json.dumps(c) for c in cases) + "\n]}\n")
        print(f"smallest gap of the two best logits: {narrowest:.4f}")

    with open(os.path.join(args.data, "prompts.jsonl")) as f:
        prompts = [json.loads(line) for line in f][:args.prompts]
    good = stopped = 0
    topics = {}
    for n, p in enumerate(prompts):
        out, _ = net.greedy(chat_ids(p["question"])[1], 160)
        text = text_of(out)
        ok = bool(text) and all(has(text, m) for m in p["must"])
        if p["topic"] == "sum" and p["must"][0].isalnum() and p["must"][0] not in ("Yes", "No"):
            ok = ok and has(text.split()[-1], p["must"][0])
        if p["count"]:
            found = re.split(r", | and ", text.split(" are ")[-1].rstrip("."))
            ok = ok and len({x.lower() for x in found}) == len(found) == p["count"]
        good, stopped = good + ok, stopped + (out[-1] == net.c["eos_token_id"])
        hit = topics.setdefault(p["topic"], [0, 0])
        hit[0], hit[1] = hit[0] + ok, hit[1] + 1
        if not ok or n < args.show:
            print(f"{'good' if ok else 'MISS'} [{p['topic']}] {p['question']} -> {text}")
    print(f"on the subject: {good} of {len(prompts)}; stop by themselves: {stopped} of {len(prompts)}")
    print("by topic: " + ", ".join(f"{t} {a}/{b}" for t, (a, b) in sorted(topics.items())))


if __name__ == "__main__":
    main()
