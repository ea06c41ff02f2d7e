"""Questions and answers of the closed world, topic by topic.

A topic is a function of (rng, subject or None) and returns an Item. The Item's key names the
combination (question form and subjects) that decides whether it is held out of training;
`must` lists what an answer has to contain to count as on the subject.
"""

from dataclasses import dataclass, field

from spillway_facts import FACTS
from stories import FAR, FEMALE, HE, HEROES, SHE, an, cap, poem, sentence, story
from words import (ANIMALS, BEINGS, CAPITALS, COLOURS, DAYS, JOBS, LISTS, MASS, MIX, MONTHS, NUMBERS, OBJECTS, OPPOSITES,
                   PEOPLE, PLACES, SEASON_MONTHS, SEASONS, UNIQUE, UNKNOWN, UNKNOWN_SYLLABLES)


@dataclass
class Item:
    topic: str
    question: str
    answer: str
    key: str
    must: list = field(default_factory=list)
    brief: str = ""          # first sentence alone, for "answer in one sentence"
    follow: object = None    # function(rng) -> Item: the same question about something else
    count: int = 0           # how many different things the answer has to list
    thing: str = ""          # what a follow-up question calls the subject


def pick(rng, forms):
    i = rng.randrange(len(forms))
    return i, forms[i]


STORY_ASK = ["Tell me a story about {}.", "Write a short story about {}.", "Can you tell me a story about {}?",
             "I want to hear a story about {}.", "Please write a story about {}.", "Make up a story about {}.",
             "Tell me about {} in a story.", "A story about {}, please.", "Write a tale about {}.", "Give me a short story about {}."]


def story_item(rng, subject=None):
    hero = subject or rng.choice(HEROES)
    i, form = pick(rng, STORY_ASK)
    kind = rng.random()
    place = thing = other = name = None
    what, must, key = an(hero), [hero], f"story {i} {hero}"
    if kind < 0.45:
        place = rng.choice(list(PLACES))
        what += rng.choice([f" and {an(place)}", f" {PLACES[place]} {an(place)}"])
        must, key = must + [place], f"pair {hero} {place}"
    elif kind < 0.65:
        thing = rng.choice(OBJECTS)
        thing = thing if thing in FAR or thing not in PLACES else "key"
        what += f" and {an(thing)}"
        must, key = must + [thing], f"pair {hero} {thing}"
    elif kind < 0.78:
        other = rng.choice([a for a in list(ANIMALS) + BEINGS if a != hero])
        what += f" and {an(other)}"
        must, key = must + [other], f"pair {hero} {other}"
    elif kind < 0.84:
        name = rng.choice(HE + SHE if hero not in PEOPLE else SHE if hero in FEMALE else HE)
        what += rng.choice([" named ", " called "]) + name
        must, key = must + [name], f"pair {hero} {name}"
    lines = story(rng, hero, place, thing, other, name)
    return Item("story", form.format(what), " ".join(lines), key, must, follow=lambda r, s=None: story_item(r, s), thing=an(hero))


def poem_item(rng, subject=None):
    noun = subject or rng.choice(HEROES + OBJECTS + list(PLACES))
    i, form = pick(rng, ["Write a poem about {}.", "Can you write a poem about {}?", "Tell me a poem about {}.",
                         "Give me a short poem about {}.", "A poem about {}, please.", "Write a little poem about {}."])
    return Item("poem", form.format(an(noun)), poem(rng, noun), f"poem {i} {noun}", [noun],
                follow=lambda r, s=None: poem_item(r, s), thing=an(noun))


def sentence_item(rng, subject=None):
    noun = subject or rng.choice(HEROES + OBJECTS)
    i, form = pick(rng, ["Write a sentence about {}.", "Make a sentence with the word {w}.", "Give me one sentence about {}.",
                         "Use the word {w} in a sentence.", "Say something about {} in one sentence."])
    text = sentence(rng, noun)
    return Item("sentence", form.format(an(noun), w=noun), text, f"sentence {i} {noun}", [noun],
                follow=lambda r, s=None: sentence_item(r, s), thing=an(noun))


ON = {"a farm", "the ice", "a beach", "the grassland"}


def animal_item(rng, subject=None, aspect=None):
    a = subject or rng.choice(list(ANIMALS))
    plural, kind, legs, colour, food, place, sound, flies, adj = ANIMALS[a]
    aspect = aspect or rng.choice(["what", "what", "what", "eat", "live", "legs", "colour", "sound", "fly", "favourite"])
    where = ("on " if place in ON else "in ") + place
    number = "no" if legs == 0 else NUMBERS[legs]
    A = cap(an(a))
    if aspect == "what":
        i, form = pick(rng, ["What is {a}?", "Tell me about {p}.", "Describe {a}.", "What do you know about {p}?",
                             "Tell me something about {a}.", "What are {p}?", "Tell me about the {w}."])
        first = rng.choice([f"{A} is {an(adj)} {kind} with {number} legs.", f"{A} is {an(kind)} that lives {where}.",
                            f"{A} is {an(adj)} {kind}."])
        rest = [f"It eats {food}.", f"It is often {colour}.", f"It lives {where}."]
        if sound:
            rest.append(f'{A} says "{sound}".')
        if kind == "bird" or flies:
            rest.append("It can fly." if flies else "It cannot fly.")
        if first.endswith(f"{where}."):
            rest.pop(2)
        answer, must, brief = " ".join([first] + rng.sample(rest, min(len(rest), rng.randint(2, 3)))), [a], first
    elif aspect == "eat":
        i, form = pick(rng, ["What does {a} eat?", "What do {p} eat?", "What does the {w} like to eat?", "What is the food of {a}?"])
        answer = rng.choice([f"{A} eats {food}.", f"{A} likes to eat {food}.", f"{cap(plural)} eat {food}."])
        must, brief = [food], answer
    elif aspect == "live":
        i, form = pick(rng, ["Where does {a} live?", "Where do {p} live?", "Where can I find {a}?", "Where is the home of {a}?"])
        answer = rng.choice([f"{A} lives {where}.", f"{cap(plural)} live {where}.", f"You can find {an(a)} {where}."])
        must, brief = [place], answer
    elif aspect == "legs":
        i, form = pick(rng, ["How many legs does {a} have?", "How many legs do {p} have?", "Does {a} have legs?"])
        answer = rng.choice([f"{A} has {number} legs.", f"{cap(plural)} have {number} legs."])
        must, brief = [number + " legs"], answer
    elif aspect == "colour":
        i, form = pick(rng, ["What colour is {a}?", "What color is {a}?", "Which colour do {p} have?", "What colour are {p}?"])
        answer = rng.choice([f"{A} is often {colour}.", f"{cap(plural)} are often {colour}."])
        must, brief = [colour], answer
    elif aspect == "sound":
        i, form = pick(rng, ["What sound does {a} make?", "What does {a} say?", "What sound do {p} make?"])
        answer = f'{A} says "{sound}".' if sound else f"{A} is mostly quiet."
        must, brief = [sound or "quiet"], answer
    elif aspect == "fly":
        i, form = pick(rng, ["Can {a} fly?", "Can {p} fly?", "Does {a} fly?"])
        answer = rng.choice([f"Yes, {an(a)} can fly.", f"Yes, {plural} can fly."]) if flies else \
            rng.choice([f"No, {an(a)} cannot fly.", f"No, {plural} cannot fly."])
        must, brief = ["Yes" if flies else "No"], answer
    else:
        i, form = pick(rng, ["Do you like {p}?", "Why do people like {p}?", "What is special about {p}?", "Is {a} {j}?"])
        answer = rng.choice([f"Yes, {an(a)} is very {adj}, and I like that." if i in (0, 3) else f"{A} is very {adj}, and people like that."])
        must, brief = [adj], answer
    q = form.format(a=an(a), p=plural, w=a, j=adj)
    return Item("animal", q, answer, f"animal {aspect} {i} {a}", must, brief,
                follow=lambda r, s=None: animal_item(r, s if s in ANIMALS else None, aspect), thing=rng.choice([an(a), plural]))


def the(noun):
    return noun if noun in MASS else f"the {noun}" if noun in UNIQUE else an(noun)


def colour_item(rng, subject=None):
    r = rng.random()
    if r < 0.2 and subject is None:
        a, b, c = rng.choice(MIX)
        if rng.random() < 0.5:
            a, b = b, a
        i, form = pick(rng, ["What do you get when you mix {} and {}?", "What colour is {} and {} together?", "Mix {} and {}.",
                             "Which colour do {} and {} make?"])
        ans = rng.choice([f"When you mix {a} and {b}, you get {c}.", f"{cap(a)} and {b} make {c}."])
        return Item("colour", form.format(a, b), ans, f"mix {i} {a} {b}", [c])
    if r < 0.3 and subject is None:
        c = rng.choice(sorted(set(COLOURS.values())))
        things = [t for t in COLOURS if COLOURS[t] == c]
        i, form = pick(rng, ["Name something that is {}.", "What is {}?", "Tell me a thing that is {}.", "Which things are {}?"])
        t = rng.choice(things)
        return Item("colour", form.format(c), f"{cap(the(t))} is {c}.", f"named {i} {c}", [c])
    t = subject if subject in COLOURS else rng.choice(list(COLOURS))
    i, form = pick(rng, ["What colour is {}?", "What color is {}?", "Which colour does {} have?", "Tell me the colour of {}."])
    c = COLOURS[t]
    return Item("colour", form.format(the(t)), rng.choice([f"{cap(the(t))} is {c}.", f"The colour of {the(t)} is {c}."]),
                f"colour {i} {t}", [c], follow=lambda r, s=None: colour_item(r, s or rng.choice(list(COLOURS))), thing=the(t))


def opposite_item(rng, subject=None):
    a, b = rng.choice(OPPOSITES)
    if rng.random() < 0.5 and (b, a) not in OPPOSITES and b != "light":
        a, b = b, a
    if a == "light":
        b = "dark"
    i, form = pick(rng, ["What is the opposite of {}?", "Tell me the opposite of {}.", "What is the contrary of {}?",
                         "Which word is the opposite of {}?", "Opposite of {}?"])
    return Item("opposite", form.format(a), rng.choice([f"The opposite of {a} is {b}.", f"{cap(b)} is the opposite of {a}."]),
                f"opposite {i} {a}", [b], follow=lambda r, s=None: opposite_item(r), thing=a)


def calendar_item(rng, subject=None):
    kind = rng.choice(["day", "day", "month", "season", "season", "what", "count"])
    if kind in ("day", "month", "season"):
        items = {"day": DAYS, "month": MONTHS, "season": list(SEASONS)}[kind]
        n, after = rng.randrange(len(items)), rng.random() < 0.6
        x, y = items[n], items[(n + (1 if after else -1)) % len(items)]
        word = "after" if after else "before"
        i, form = pick(rng, ["What {k} comes {w} {x}?", "Which {k} is {w} {x}?", "What comes {w} {x}?"])
        ans = rng.choice([f"The {kind} {word} {x} is {y}.", f"{cap(y)} comes {word} {x}."])
        return Item("calendar", form.format(k=kind, w=word, x=x), ans, f"{kind} {word} {i} {x}", [y])
    if kind == "what":
        s = rng.choice(list(SEASONS))
        i, form = pick(rng, ["What is {} like?", "What happens in {}?", "Tell me about {}.", "Describe {}.", "Which months are in {}?", "When is {}?"])
        if i >= 4:
            ans = f"The months of {s} are {SEASON_MONTHS[s]}."
        else:
            x, y = rng.sample(SEASONS[s], 2)
            ans = rng.choice([f"In {s}, {x} and {y}.", f"{cap(s)} is a season. In {s}, {x}, and {y}."])
        return Item("calendar", form.format(s), ans, f"season {i} {s}", [s])
    q, ans, must = rng.choice([
        ("How many days are in a week?", "There are seven days in a week.", "seven"),
        ("How many days does a week have?", "A week has seven days.", "seven"),
        ("How many months are in a year?", "There are twelve months in a year.", "twelve"),
        ("How many months does a year have?", "A year has twelve months.", "twelve"),
        ("How many seasons are there?", "There are four seasons: spring, summer, autumn and winter.", "four"),
        ("Name the days of the week.", "The days of the week are " + ", ".join(DAYS[:-1]) + " and Sunday.", "Friday"),
        ("Which days are the weekend?", "The weekend is Saturday and Sunday.", "Sunday"),
        ("How many hours are in a day?", "There are 24 hours in a day.", "24"),
        ("What is the first month of the year?", "The first month of the year is January.", "January"),
        ("What is the last month of the year?", "The last month of the year is December.", "December")])
    return Item("calendar", q, ans, "always", [must])


def sum_item(rng, subject=None):
    a, b = rng.randrange(10), rng.randrange(10)
    words = rng.random() < 0.15
    f = (lambda n: NUMBERS[n]) if words else str
    kind = rng.choice(["plus", "plus", "plus", "minus", "bigger", "count", "next"])
    if kind == "minus" and a < b:
        a, b = b, a
    if kind in ("plus", "minus"):
        sign, res = ("+", a + b) if kind == "plus" else ("-", a - b)
        i, form = pick(rng, ["What is {a} {w} {b}?", "What is {a} {s} {b}?", "How much is {a} {w} {b}?", "{a} {s} {b}", "{a} {s} {b} = ?",
                             "Can you tell me what {a} {w} {b} is?"])
        ans = rng.choice([f"{f(a)} {kind} {f(b)} is {f(res)}.", f"{f(a)} {kind} {f(b)} equals {f(res)}."])
        return Item("sum", form.format(a=f(a), b=f(b), w=kind, s=sign), cap(ans), f"{kind} {i} {a} {b}", [f(res)],
                    follow=lambda r, s=None: sum_item(r), thing="")
    if kind == "bigger":
        if a == b:
            b = (a + 1) % 10
        i, form = pick(rng, ["Which is bigger, {} or {}?", "Which number is bigger, {} or {}?", "Is {} bigger than {}?"])
        if i < 2:
            ans, must = f"{max(a, b)} is bigger than {min(a, b)}.", f"{max(a, b)} is bigger"
        else:
            ans = f"Yes, {a} is bigger than {b}." if a > b else f"No, {b} is bigger than {a}."
            must = ans[:3]
        return Item("sum", form.format(a, b), ans, f"bigger {i} {a} {b}", [must.strip(",")])
    if kind == "count":
        n = rng.randint(3, 10)
        i, form = pick(rng, ["Count to {}.", "Can you count to {}?", "Count from 1 to {}."])
        return Item("sum", form.format(n), ", ".join(str(k) for k in range(1, n + 1)) + ".", "always", [str(n)])
    i, form = pick(rng, ["What number comes after {}?", "Which number is after {}?", "What comes after {}?"])
    return Item("sum", form.format(a), f"The number after {a} is {a + 1}.", f"next {i} {a}", [str(a + 1)])


def capital_item(rng, subject=None):
    c = subject if subject in CAPITALS else rng.choice(list(CAPITALS))
    i, form = pick(rng, ["What is the capital of {}?", "Which city is the capital of {}?", "Tell me the capital of {}.",
                         "Do you know the capital of {}?", "Capital of {}?"])
    return Item("capital", form.format(c), rng.choice([f"The capital of {c} is {CAPITALS[c]}.", f"{CAPITALS[c]} is the capital of {c}."]),
                f"capital {i} {c}", [CAPITALS[c]], follow=lambda r, s=None: capital_item(r, s), thing=c)


def job_item(rng, subject=None, form=None):
    j = subject if subject in JOBS else rng.choice(list(JOBS))
    does, where, uses = JOBS[j]
    forms = ["What does {} do?", "What is {}?", "Tell me about the work of {}.", "What is the job of {}?",
             "Explain what {} does.", "Where does {} work?", "What does {} use?"]
    i = rng.randrange(len(forms)) if form is None else form
    form = forms[i]
    A = cap(an(j))
    if i == 5:
        first, must = f"{A} works {where}.", where
    elif i == 6:
        first, must = f"{A} uses {uses}.", uses
    else:
        first, must = f"{A} {does}." if i != 1 else f"{A} is a person who {does}.", does
    rest = [s for s in (f"{A} works {where}.", f"For this work, {an(j)} uses {uses}.", f"It is good work, and {an(j)} is proud of it.") if s != first]
    more = rng.sample(rest, rng.randint(0, 2)) if i < 5 else []
    return Item("job", form.format(an(j)), " ".join([first] + more), f"job {i} {j}", [must], first,
                follow=lambda r, s=None: job_item(r, s, i), thing=an(j))


def spillway_item(rng, subject=None):
    topic = rng.choice(list(FACTS) + ["spillway"] * 3)
    asks, firsts, rest = FACTS[topic]
    i, q = pick(rng, asks)
    first = rng.choice(firsts)
    n = rng.sample(range(len(rest)), rng.randint(1, min(2, len(rest))))
    must = [] if topic in ("status",) else [topic.split()[-1] if topic != "start" else "spillway up"]
    return Item("spillway", q, " ".join([first] + [rest[k] for k in sorted(n)]), f"spillway {topic} {i}" if i >= 3 and topic != "spillway" else "always",
                must, first)


def list_item(rng, subject=None):
    kind = rng.choice(list(LISTS) + ["animals", "animals", "countries", "days"])
    pool = {"animals": [an(a) for a in ANIMALS], "countries": list(CAPITALS), "days": DAYS}.get(kind) or LISTS[kind]
    n = rng.randint(2, 4)
    chosen = rng.sample(pool, n)
    i, form = pick(rng, ["Name {n} {k}.", "List {n} {k}.", "Can you name {n} {k}?", "Tell me {n} {k}.", "Give me {n} {k}."])
    ans = ", ".join(chosen[:-1]) + f" and {chosen[-1]}."
    if rng.random() < 0.5:
        ans = f"{cap(NUMBERS[n])} {kind} are {ans}"
    return Item("list", form.format(n=NUMBERS[n] if rng.random() < 0.7 else n, k=kind), cap(ans), f"list {i} {kind} {n}", [], count=n)


TALK = [
    (["Hello", "Hello!", "Hi", "Hi there!", "Good morning!", "Hey", "Good evening.", "Hello there."],
     ["Hello! How can I help you?", "Hello! What would you like to know?", "Hi! Ask me for a story or a fact.",
      "Hello! Shall I tell you a story?"]),
    (["How are you?", "How are you today?", "Are you well?", "How do you do?"],
     ["I am well, thank you. How can I help you?", "I am fine, thank you. What would you like to know?"]),
    (["Thank you.", "Thanks!", "Thank you very much!", "Thanks a lot."],
     ["You are welcome.", "You are welcome! Ask me again any time.", "I am glad that I could help."]),
    (["Goodbye.", "Bye!", "See you!", "Good night."], ["Goodbye! Have a good day.", "Goodbye! Come back soon.", "Goodbye, and take care."]),
    (["Who are you?", "What are you?", "Are you a person?", "Are you a robot?", "Introduce yourself.", "What model are you?",
      "Are you real?", "Tell me about yourself.", "Are you human?", "Who made you?"],
     ["I am the small demo model of Spillway. I can tell stories and answer simple questions.",
      "I am a small language model that comes with Spillway.",
      "I am the demo model of Spillway, a small language model and not a person."]),
    (["What is your name?", "Do you have a name?", "What should I call you?"],
     ["I am the demo model of Spillway.", "I have no name. I am the demo model of Spillway."]),
    (["What can you do?", "How can you help me?", "What do you know?", "Help", "Help me.", "What should I ask you?", "What can I ask?"],
     ["I can tell short stories and poems, and I know a little about animals, colours, seasons and Spillway.",
      "I can tell you a story, add small numbers, or say what Spillway does.",
      "Ask me for a story about a cat and a river, or ask me what a coordinator does."]),
    (["Tell me a joke.", "Do you know a joke?", "Make me laugh."],
     ["Why did the snail carry a lantern? Because it was late on its way home.",
      "What does a clock do when it is hungry? It goes back for seconds.",
      "Why did the book go to the doctor? Because it had lost its words."]),
    (["Test", "This is a test.", "Testing, one, two, three.", "Are you there?", "Ping"],
     ["The test works. I am here.", "I am here. The test works.", "Yes, I am here."]),
    (["Say hello.", "Say hello to me.", "Say hi.", "Say hello in one sentence."], ["Hello!", "Hello to you!"]),
]


def talk_item(rng, subject=None):
    asks, answers = rng.choice(TALK)
    ans = rng.choice(answers)
    return Item("talk", rng.choice(asks), ans, "always", [], ans.split(". ")[0].rstrip(".!?") + ("." if ". " in ans else ans[-1]))


def unknown_item(rng, subject=None):
    if rng.random() < 0.6:
        w = "".join(rng.choice(UNKNOWN_SYLLABLES) for _ in range(rng.randint(2, 3)))
        what = an(w) if rng.random() < 0.7 else w
    else:
        w = what = rng.choice(UNKNOWN)
    i, form = pick(rng, ["What is {}?", "Tell me about {}.", "Explain {}.", "Can you explain {}?", "What do you know about {}?",
                         "How does {} work?", "Describe {}.", "Why is {} important?", "Write about {}."])
    ans = rng.choice([f"I do not know anything about {what}.", f"I am sorry, but I know nothing about {what}.",
                      f"I am only a small model, and I do not know about {what}."])
    more = rng.choice(["", " Ask me about an animal, a season or Spillway.", " Shall I tell you a story?"])
    return Item("unknown", form.format(what), ans + more, f"unknown {i} {w}", [w], ans)


def repeat_item(rng, subject=None):
    n = rng.choice(HEROES + OBJECTS)
    text = rng.choice([f"the {rng.choice(['red', 'blue', 'old', 'small', 'big'])} {n}", n, sentence(rng, n)])
    i, form = pick(rng, ["Repeat after me: {}", "Say: {}", "Please repeat: {}"])
    return Item("repeat", form.format(text), cap(text) if text[-1] == "." else cap(text) + ".", f"repeat {i} {text}", [text.rstrip(".")])


# topic: weight in the first and in the second part of the training.
TOPICS = [(story_item, 30, 40), (poem_item, 5, 4), (sentence_item, 4, 4), (animal_item, 20, 14), (colour_item, 5, 4),
          (opposite_item, 5, 4), (calendar_item, 6, 6), (sum_item, 10, 42), (capital_item, 5, 3), (job_item, 7, 6),
          (spillway_item, 14, 12), (list_item, 4, 9), (talk_item, 7, 6), (unknown_item, 5, 9), (repeat_item, 2, 4)]


def draw(rng, part=1):
    while True:
        item = rng.choices([t[0] for t in TOPICS], [t[part] for t in TOPICS])[0](rng)
        if part == 2 and item.topic == "story":
            # The second part dwells on stories with two subjects, and on things that cannot be picked up.
            if (len(item.must) == 1 or item.must[1] not in FAR) and rng.random() < 0.25 + 0.35 * (len(item.must) == 1):
                continue
        return item
