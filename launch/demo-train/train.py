"""Trains the demo model.

    python train.py --data DIR --tokenizer MODEL_DIR/tokenizer.json --work DIR [--steps N] [--stop N] [--resume]

Matrices inside the layers are trained with Muon (momentum, orthogonalized by Newton-Schulz steps),
the embedding and the norms with Adam. The learning rate is constant after a short warm-up and falls
linearly to zero over the last 30 % of the steps; so a checkpoint of the constant phase, resumed with
a smaller --steps, gives the same weights as a run with that --steps from the start. Deterministic
given the seed, the versions in requirements.txt and the kind of CPU.
"""

import argparse
import json
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

import model

ROWS = {128: 16, 256: 8, 512: 4}  # row length -> rows of a batch
USER_WEIGHT = 0.1
STATE = "checkpoint.npz"


def encode(tok, doc):
    """Token ids and loss weights of a document."""
    ids, weights = [tok.token_to_id("<|bos|>")], [0.0]
    end = tok.token_to_id("<|end|>")
    for role, text in doc:
        w = USER_WEIGHT if role in ("user", "system") else 1.0
        if role != "text":
            ids.append(tok.token_to_id(f"<|{role}|>"))
            weights.append(USER_WEIGHT)
        part = tok.encode(text, add_special_tokens=False).ids
        ids += part + [end]
        weights += [w] * (len(part) + 1)
    return ids, weights


def load(path, tok, limit):
    docs = []
    with open(path) as f:
        for line in f:
            ids, w = encode(tok, json.loads(line))
            if len(ids) <= limit:
                docs.append((np.array(ids, np.int32), np.array(w, np.float32)))
    return docs


def pack(docs, length, rows, pad):
    """Fills rows greedily from the front of docs (a list, consumed); returns (tokens, weights, segments)."""
    t = np.full((rows, length + 1), pad, np.int32)
    w = np.zeros((rows, length + 1), np.float32)
    s = np.zeros((rows, length + 1), np.int32)
    for r in range(rows):
        used, n, tries = 0, 1, 0
        while docs and tries < 12:
            k = len(docs) - 1 - tries
            if k < 0:
                break
            ids, weight = docs[k]
            if used + len(ids) > length + 1:
                tries += 1
                continue
            docs.pop(k)
            t[r, used:used + len(ids)], w[r, used:used + len(ids)] = ids, weight
            s[r, used:used + len(ids)] = n
            used, n = used + len(ids), n + 1
    return t, w, s


def batches(docs, seed, pad):
    """The endless sequence of batches; depends on docs and seed only."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(docs))
        short = [docs[k] for k in order if len(docs[k][0]) <= 129]
        long = [docs[k] for k in order if len(docs[k][0]) > 129]
        while len(short) > 200 and len(long) > 20:
            length = int(rng.choice([128, 256, 512], p=[0.76, 0.17, 0.07]))
            pool = short
            if length > 128:
                # Rows for long documents are filled up with short ones.
                take = [long.pop() for _ in range(ROWS[length] * length // 256) if long]
                pool = [short.pop() for _ in range(ROWS[length] * 2)]
                take = [d for d in take if len(d[0]) <= length + 1]
                pool = pool + sorted(take, key=lambda d: len(d[0]))
            yield pack(pool, length, ROWS[length], pad)


def orthogonalize(g):
    """Newton-Schulz steps towards the nearest semi-orthogonal matrix; g is [n, out, in]."""
    flip = g.shape[1] > g.shape[2]
    x = g.swapaxes(1, 2) if flip else g
    x = x / (jnp.sqrt(jnp.sum(x * x, axis=(1, 2), keepdims=True)) + 1e-7)
    for _ in range(5):
        a = x @ x.swapaxes(1, 2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x.swapaxes(1, 2) if flip else x


def make_step(c):
    groups = {}
    for name, shape in model.shapes(c).items():
        if len(shape) == 2 and "embed" not in name:
            groups.setdefault(shape, []).append(name)

    def step(params, mom, m, v, tokens, weights, segments, rate, n):
        loss, grad = jax.value_and_grad(lambda p: model.loss_fn(p, tokens, weights, segments, c))(params)
        params, mom, m, v = dict(params), dict(mom), dict(m), dict(v)
        for shape, names in groups.items():
            update = []
            for k in names:
                mom[k] = 0.95 * mom[k] + grad[k]
                update.append(0.95 * mom[k] + grad[k])
            update = orthogonalize(jnp.stack(update))
            scale = 0.02 * max(1.0, shape[0] / shape[1]) ** 0.5
            for k, u in zip(names, update):
                params[k] = params[k] - rate * scale * u
        for k in m:
            m[k] = 0.9 * m[k] + 0.1 * grad[k]
            v[k] = 0.98 * v[k] + 0.02 * grad[k] ** 2
            u = (m[k] / (1 - 0.9 ** n)) / (jnp.sqrt(v[k] / (1 - 0.98 ** n)) + 1e-8)
            params[k] = params[k] - rate * 0.005 * u
        return params, mom, m, v, loss

    return jax.jit(step)


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--data", required=True)
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--work", required=True)
    ap.add_argument("--steps", type=int, default=3000)
    ap.add_argument("--seed", type=int, default=7)
    ap.add_argument("--stop", type=int, help="end after this step, in the constant phase, with a checkpoint")
    ap.add_argument("--resume", action="store_true")
    args = ap.parse_args()
    c = model.CONFIG
    os.makedirs(args.work, exist_ok=True)
    tok = Tokenizer.from_file(args.tokenizer)
    limit = c["max_position_embeddings"]
    pad = tok.token_to_id("<|end|>")
    docs = load(os.path.join(args.data, "train.jsonl"), tok, limit)
    held = load(os.path.join(args.data, "held.jsonl"), tok, 257)
    print(f"{len(docs)} documents, {sum(len(d[0]) for d in docs)} tokens, {model.count(c)} parameters", flush=True)
    held.reverse()
    tests = []
    while held and len(tests) < 24:
        tests.append(pack(held, 256, 8, pad))

    params = model.init(c, args.seed)
    matrix = [k for k, p in params.items() if p.ndim == 2 and "embed" not in k]
    mom = {k: jnp.zeros_like(params[k]) for k in matrix}
    m = {k: jnp.zeros_like(p) for k, p in params.items() if k not in mom}
    v = {k: jnp.zeros_like(p) for k, p in params.items() if k not in mom}
    start, seen, path = 0, 0, os.path.join(args.work, STATE)
    if args.resume:
        z = np.load(path)
        start, seen = int(z["step"]), int(z["seen"])
        for tag, d in (("p", params), ("a", mom), ("m", m), ("v", v)):
            for k in d:
                d[k] = jnp.asarray(z[f"{tag}:{k}"])

    def save(n):
        arrays = {f"{tag}:{k}": np.asarray(x) for tag, d in (("p", params), ("a", mom), ("m", m), ("v", v)) for k, x in d.items()}
        np.savez(path + ".tmp.npz", step=n, seen=seen, **arrays)
        os.replace(path + ".tmp.npz", path)

    test = jax.jit(lambda p, t, w, s: (model.loss_fn(p, t, (w == 1.0) * 1.0, s, c), jnp.sum(w[:, 1:] == 1.0)))

    def held_loss():
        total = number = 0.0
        for batch in tests:
            loss, n = test(params, *batch)
            total, number = total + float(loss) * float(n), number + float(n)
        return total / number

    step, flow, t0, mean = make_step(c), batches(docs, args.seed, pad), time.time(), []
    cooldown = int(args.steps * 0.7)
    assert args.stop is None or args.stop % 100 == 0 and args.stop <= cooldown
    assert start <= cooldown or start == 0, "resume needs a checkpoint of the constant phase of --steps"
    log = open(os.path.join(args.work, "log.jsonl"), "a")
    for n in range(1, args.steps + 1):
        batch = next(flow)
        if n <= start:
            continue
        rate = min(1.0, n / 40, (args.steps + 1 - n) / (args.steps - cooldown))
        params, mom, m, v, loss = step(params, mom, m, v, *batch, rate, float(n))
        seen += int((batch[1] > 0).sum())
        mean.append(float(loss))
        if n % 50 == 0 or n == args.steps:
            out = {"step": n, "train": round(float(np.mean(mean)), 4), "tokens": seen, "seconds": round(time.time() - t0)}
            mean = []
            if n % 250 == 0 or n == args.steps:
                out["held"] = round(held_loss(), 4)
            print(json.dumps(out), flush=True)
            log.write(json.dumps(out) + "\n")
            log.flush()
        if n % 100 == 0 and n <= cooldown:
            save(n)
        if n % 100 == 0 or n == args.steps:
            np.savez(os.path.join(args.work, "weights.tmp.npz"), **{k: np.asarray(p) for k, p in params.items()})
            os.replace(os.path.join(args.work, "weights.tmp.npz"), os.path.join(args.work, "weights.npz"))
        if n == args.stop:
            break


if __name__ == "__main__":
    main()
