"""Trains the byte-level BPE tokenizer on the training documents and writes tokenizer.json.

    python make_tokenizer.py --data DIR --out MODEL_DIR

Special tokens lie behind the learned vocabulary. The chat form of a document is
<|bos|>{<|role|>text<|end|>}*, the same that the chat template in tokenizer_config.json makes.
"""

import argparse
import json
import os

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from model import CONFIG

SPECIAL = ["<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = ("{{ bos_token }}{% for message in messages %}"
            "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
            "{{ raise_exception('The roles are system, user and assistant.') }}{% endif %}"
            "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--data", required=True)
    ap.add_argument("--out", required=True)
    args = ap.parse_args()
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=CONFIG["vocab_size"] - len(SPECIAL), special_tokens=[], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())

    def texts():
        with open(os.path.join(args.data, "train.jsonl")) as f:
            for n, line in enumerate(f):
                if n == 40000:
                    return
                for _, text in json.loads(line):
                    yield text

    tok.train_from_iterator(texts(), trainer)
    d = json.loads(tok.to_str())
    vocab = d["model"]["vocab"]
    assert len(vocab) == CONFIG["vocab_size"] - len(SPECIAL), len(vocab)
    d["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in d["model"]["merges"]]
    d["added_tokens"] = [{"id": len(vocab) + n, "content": s, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for n, s in enumerate(SPECIAL)]
    bos = {"SpecialToken": {"id": SPECIAL[0], "type_id": 0}}
    d["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": SPECIAL[0], "type_id": 1}},
                 {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {SPECIAL[0]: {"id": SPECIAL[0], "ids": [len(vocab)], "tokens": [SPECIAL[0]]}}}
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, "tokenizer.json"), "w") as f:
        json.dump(d, f, ensure_ascii=False, indent=1)
        f.write("\n")
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    with open(os.path.join(args.out, "tokenizer_config.json"), "w") as f:
        json.dump({"added_tokens_decoder": {str(len(vocab) + n): dict(content=s, **plain) for n, s in enumerate(SPECIAL)},
                   "bos_token": "<|bos|>", "eos_token": "<|end|>", "chat_template": TEMPLATE,
                   "clean_up_tokenization_spaces": False, "model_max_length": CONFIG["max_position_embeddings"],
                   "tokenizer_class": "PreTrainedTokenizerFast"}, f, indent=2)
        f.write("\n")


if __name__ == "__main__":
    main()
