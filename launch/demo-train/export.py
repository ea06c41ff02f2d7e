"""Writes model.safetensors (BF16), config.json and generation_config.json from the trained weights.

    python export.py --weights WORK/weights.npz --out MODEL_DIR
"""

import argparse
import json
import os
import struct

import numpy as np

import model


def bf16(x):
    """float32 -> bfloat16 bits, rounded to nearest even."""
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype("<u2")


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    names = sorted(tensors)
    for k in names:
        size = tensors[k].size * 2
        header[k] = {"dtype": "BF16", "shape": list(tensors[k].shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for k in names:
            f.write(bf16(tensors[k]).tobytes())


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--weights", required=True)
    ap.add_argument("--out", required=True)
    args = ap.parse_args()
    c = model.CONFIG
    z = np.load(args.weights)
    assert {k: z[k].shape for k in z.files} == model.shapes(c)
    write_safetensors(os.path.join(args.out, "model.safetensors"), {k: z[k] for k in z.files})
    with open(os.path.join(args.out, "tokenizer.json")) as f:
        ids = {t["content"]: t["id"] for t in json.load(f)["added_tokens"]}
    bos, end = ids["<|bos|>"], ids["<|end|>"]
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "attention_dropout": 0.0,
              "bos_token_id": bos, "eos_token_id": end, "hidden_act": "silu", "initializer_range": 0.02, "mlp_bias": False,
              "pretraining_tp": 1, "rope_scaling": None, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
              "use_cache": True, **c}
    for name, content in (("config.json", config), ("generation_config.json", {"bos_token_id": bos, "eos_token_id": end})):
        with open(os.path.join(args.out, name), "w") as f:
            json.dump(dict(sorted(content.items())), f, indent=2)
            f.write("\n")


if __name__ == "__main__":
    main()
