"""Writes the synthetic corpus: training and held-out documents, from one seed.

    python gen_data.py --out DIR [--docs 120000] [--held 1500] [--seed 20240] [--part 1|2]

A document is a list of pieces [role, text]: a conversation (system, user, assistant) or a plain
text. One twelfth of all combinations (question form x subject; story subject x place, thing, or
other animal) is decided by a checksum to be held out: no training document asks for it, and every question and
every story of the held-out set is such a combination. (Greetings and other fixed phrases have no
combination and are in training only.) --part 2 mixes the topics of train.jsonl differently, for the
second part of the training; held.jsonl and prompts.jsonl are the same for both.
"""

import argparse
import json
import os
import random
import zlib

import stories
from topics import draw, spillway_item, story_item
from words import ANIMALS, CAPITALS, JOBS, PLACES

HELD_SHARE = 12


def held_out(item):
    if item.key == "always":
        return None
    return zlib.crc32(item.key.encode()) % HELD_SHARE == 0


def draw_from(rng, held, fn=None, part=1):
    """An item from the wanted side; items that have no combination belong to training only."""
    while True:
        item = fn(rng) if fn else draw(rng, part)
        if held_out(item) == held or (held_out(item) is None and not held):
            return item


def vary(rng, q):
    """The same question as people type it."""
    r = rng.random()
    if r < 0.10:
        q = q.lower()
    if rng.random() < 0.12:
        q = q.rstrip(".?!")
    if rng.random() < 0.04:
        q = rng.choice(["Hi! ", "Hello, ", "Please: ", "Question: "]) + q
    elif rng.random() < 0.03 and q.endswith("."):
        q = q[:-1] + ", please."
    return q


SYSTEMS = ["You are a helpful assistant.", "You are a friendly assistant.", "You are the demo model of Spillway.",
           "Answer the user's questions.", "Be kind and helpful.", "You are a helpful assistant. Be polite."]
BRIEF = ["Answer in one sentence.", "Be brief.", "Give short answers.", "You are a helpful assistant. Answer in one sentence."]
BOTS = ["Pip", "Nova", "Sunny", "Robin", "Echo", "Willow", "Ada", "Juno"]


def follow_up(rng, item, held):
    """The next turn: the same question about another subject, asked in few words."""
    for _ in range(200):
        nxt = item.follow(rng)
        if nxt.topic == item.topic and nxt.thing and nxt.thing != item.thing and bool(held_out(nxt)) == held:
            break
    else:
        return None
    if item.topic == "story":
        nxt.question = rng.choice([f"And now one about {nxt.thing}.", f"Now tell me one about {nxt.thing}.", f"And about {nxt.thing}?",
                                   f"What about {nxt.thing}?", f"And what about {nxt.thing}?"])
        hero = nxt.thing.split(" ", 1)[1]
        nxt.answer, nxt.must = " ".join(stories.story(rng, hero)), [hero]
    else:
        lead = rng.choice(["And {}?", "And what about {}?", "What about {}?", "How about {}?", "And {}"])
        nxt.question = lead.format(nxt.thing)
    nxt.brief = nxt.brief or nxt.answer
    return nxt


def conversation(rng, held, part):
    doc, items, brief = [], [], False
    r = rng.random()
    if r < 0.10:
        doc.append(["system", rng.choice(SYSTEMS)])
    elif r < 0.14:
        doc.append(["system", rng.choice(BRIEF)])
        brief = True
    elif r < 0.165 and not held:
        name = rng.choice(BOTS)
        doc.append(["system", rng.choice([f"Your name is {name}.", f"You are {name}.", f"You are {name}, a helpful assistant."])])
        doc += [["user", vary(rng, rng.choice(["What is your name?", "Who are you?", "Do you have a name?"]))],
                ["assistant", rng.choice([f"My name is {name}.", f"I am {name}."])]]
    turns = rng.choices([1, 2, 3, 4, rng.randint(5, 9)], [62, 23, 9, 4, 2])[0]
    item = None
    for _ in range(turns):
        nxt = None
        if item is not None and item.follow and rng.random() < 0.6:
            nxt = follow_up(rng, item, held)
        item = nxt or draw_from(rng, held, None, part)
        doc.append(["user", vary(rng, item.question)])
        doc.append(["assistant", item.brief if brief and item.brief else item.answer])
        items.append(item)
    return doc, items


def plain(rng, held):
    """Text without a conversation, for completion requests."""
    r = rng.random()
    if r < 0.6:
        item = draw_from(rng, held, story_item)
        text = item.answer
        if rng.random() < 0.3:
            text = f"{stories.cap(item.question.split(' about ')[-1].rstrip('.?').replace(', please', ''))}\n\n{text}"
    elif r < 0.75:
        keys = rng.sample(list(CAPITALS), 3)
        text = " ".join(f"The capital of {k} is {CAPITALS[k]}." for k in keys)
    elif r < 0.9:
        a, b = rng.sample(list(ANIMALS), 2)
        text = f"{stories.cap(ANIMALS[a][0])} eat {ANIMALS[a][4]}. {stories.cap(ANIMALS[b][0])} eat {ANIMALS[b][4]}."
    elif r < 0.95:
        text = draw_from(rng, False, spillway_item).answer
    else:
        j = rng.choice(list(JOBS))
        text = f"{stories.cap(stories.an(j))} {JOBS[j][0]}. {stories.cap(stories.an(j))} works {JOBS[j][1]}."
    return [["text", text]]


def document(rng, held, part):
    if rng.random() < 0.10:
        return plain(rng, held), None
    return conversation(rng, held, part)


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--out", required=True)
    ap.add_argument("--docs", type=int, default=120000)
    ap.add_argument("--held", type=int, default=1500)
    ap.add_argument("--seed", type=int, default=20240)
    ap.add_argument("--part", type=int, default=1, choices=(1, 2), help="mix of topics in train.jsonl")
    args = ap.parse_args()
    os.makedirs(args.out, exist_ok=True)
    for name, held, n in (("train", False, args.docs), ("held", True, args.held)):
        part = 1 if held else args.part
        rng = random.Random(args.seed + held + 100 * (part - 1))
        with open(os.path.join(args.out, name + ".jsonl"), "w") as f:
            for _ in range(n):
                f.write(json.dumps(document(rng, held, part)[0]) + "\n")
    # Prompts that check.py decodes: one held-out question each, with what the answer must contain.
    rng = random.Random(args.seed + 2)
    with open(os.path.join(args.out, "prompts.jsonl"), "w") as f:
        for _ in range(400):
            item = draw_from(rng, True)
            f.write(json.dumps({"topic": item.topic, "question": item.question, "must": item.must, "count": item.count}) + "\n")


if __name__ == "__main__":
    main()
