"""The demo model's shape and its forward pass in JAX (f32), as the trainer uses it.

Llama architecture: RMSNorm, rotary embedding in the rotate-half form, grouped-query
attention, SwiGLU, output layer tied to the embedding. Parameters are a flat dictionary
keyed by the names that Hugging Face uses, so that export is a copy.
"""

import jax
import jax.numpy as jnp
import numpy as np

CONFIG = {
    "vocab_size": 1536,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 24,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
}


def shapes(c):
    """Name -> shape of every tensor, [out, in] as Hugging Face stores them."""
    h, i, d = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    out = {"model.embed_tokens.weight": (c["vocab_size"], h), "model.norm.weight": (h,)}
    for n in range(c["num_hidden_layers"]):
        p = f"model.layers.{n}."
        out[p + "input_layernorm.weight"] = (h,)
        out[p + "post_attention_layernorm.weight"] = (h,)
        out[p + "self_attn.q_proj.weight"] = (q, h)
        out[p + "self_attn.k_proj.weight"] = (kv, h)
        out[p + "self_attn.v_proj.weight"] = (kv, h)
        out[p + "self_attn.o_proj.weight"] = (h, q)
        out[p + "mlp.gate_proj.weight"] = (i, h)
        out[p + "mlp.up_proj.weight"] = (i, h)
        out[p + "mlp.down_proj.weight"] = (h, i)
    return out


def init(c, seed):
    rng = np.random.default_rng(seed)
    params = {}
    for name, shape in sorted(shapes(c).items()):
        if len(shape) == 1:
            params[name] = np.ones(shape, np.float32)
            continue
        std = 0.02 if "embed" in name else shape[1] ** -0.5
        if "o_proj" in name or "down_proj" in name:
            std *= (2 * c["num_hidden_layers"]) ** -0.5
        params[name] = rng.normal(0.0, std, shape).astype(np.float32)
    return {k: jnp.asarray(v) for k, v in params.items()}


def count(c):
    return sum(int(np.prod(s)) for s in shapes(c).values())


def rope_tables(c, length):
    d = c["head_dim"]
    freq = c["rope_theta"] ** (-np.arange(0, d, 2, dtype=np.float64) / d)
    angle = np.arange(length, dtype=np.float64)[:, None] * freq[None, :]
    return jnp.asarray(np.cos(angle), jnp.float32), jnp.asarray(np.sin(angle), jnp.float32)


def norm(x, w, eps):
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * w


def rotate(x, cos, sin):
    a, b = jnp.split(x, 2, axis=-1)
    cos, sin = cos[None, None], sin[None, None]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def forward(params, tokens, segments, c):
    """Logits [batch, time, vocab] for token ids [batch, time].

    Causal, and a token sees only tokens of its own segment (several documents share a row).
    """
    batch, time = tokens.shape
    nh, nk, d = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    group, eps = nh // nk, c["rms_norm_eps"]
    cos, sin = rope_tables(c, time)
    seen = (segments[:, :, None] == segments[:, None, :]) & np.tril(np.ones((time, time), bool))
    mask = jnp.where(seen, 0.0, -1e30).astype(jnp.float32)[:, None, None]
    x = params["model.embed_tokens.weight"][tokens]

    def split(t, heads):
        return t.reshape(batch, time, heads, d).transpose(0, 2, 1, 3)

    for n in range(c["num_hidden_layers"]):
        w = {k: params[f"model.layers.{n}.{k}.weight"] for k in (
            "input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "self_attn.k_proj",
            "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")}
        y = norm(x, w["input_layernorm"], eps)
        q = rotate(split(y @ w["self_attn.q_proj"].T, nh), cos, sin) * (d ** -0.5)
        k = rotate(split(y @ w["self_attn.k_proj"].T, nk), cos, sin)
        v = split(y @ w["self_attn.v_proj"].T, nk)
        # Query heads of a group are neighbours; they share one batched product over [group * time].
        q = q.reshape(batch, nk, group * time, d)
        s = (q @ k.swapaxes(-1, -2)).reshape(batch, nk, group, time, time) + mask
        p = jax.nn.softmax(s, axis=-1).reshape(batch, nk, group * time, time)
        o = (p @ v).reshape(batch, nh, time, d).transpose(0, 2, 1, 3).reshape(batch, time, nh * d)
        x = x + o @ w["self_attn.o_proj"].T
        y = norm(x, w["post_attention_layernorm"], eps)
        x = x + (jax.nn.silu(y @ w["mlp.gate_proj"].T) * (y @ w["mlp.up_proj"].T)) @ w["mlp.down_proj"].T
    x = norm(x, params["model.norm.weight"], eps)
    return x @ params["model.embed_tokens.weight"].T


def loss_fn(params, tokens, weights, segments, c):
    """Weighted mean cross-entropy of tokens[:, 1:] given what precedes them."""
    logits = forward(params, tokens[:, :-1], segments[:, :-1], c)
    target = tokens[:, 1:]
    w = weights[:, 1:]
    lse = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    return jnp.sum((lse - picked) * w) / jnp.maximum(jnp.sum(w), 1.0)
