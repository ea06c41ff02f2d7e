"""Story, poem and sentence grammar: every text is about the subject that was asked for."""

from words import ADJ, ANIMALS, BEINGS, CARRY, NAMES, OBJECTS, PEOPLE, PLACES, THING_ADJ

HE = ["Milo", "Oscar", "Felix", "Hugo", "Max", "Theo", "Leo", "Sam", "Tom", "Ben"]
SHE = [n for n in NAMES if n not in HE]
FEMALE = {"girl", "queen", "princess", "baker", "pilot", "doctor", "teacher", "gardener", "painter"}
HEROES = list(ANIMALS) + PEOPLE + BEINGS
# Things too big or too far to pick up get a story of their own.
FAR = {"star": "shone above", "cloud": "hung over", "moon": "rose above", "storm": "came over",
       "snowflake": "fell down on", "tree": "grew near", "flower": "grew near"}


def an(word):
    return ("an " if word[0] in "aeiou" and not word.startswith("uni") else "a ") + word


def cap(text):
    return text[0].upper() + text[1:]


class Cast:
    """Who a story is about, where it happens, and the words that stand for them."""

    def __init__(self, rng, hero, place=None, name=None):
        self.hero, self.place = hero, place or rng.choice(list(PLACES))
        if hero in PEOPLE:
            self.he = "she" if hero in FEMALE else "he"
        else:
            self.he = "it"
        self.his = {"he": "his", "she": "her", "it": "its"}[self.he]
        self.him = {"he": "him", "she": "her", "it": "it"}[self.he]
        pool = {"he": HE, "she": SHE, "it": NAMES}[self.he]
        self.name = name or (rng.choice(pool) if rng.random() < 0.5 else None)
        self.adj = rng.choice(ADJ)
        self.at = f"{PLACES[self.place]} the {self.place}"
        self.who = self.name or f"the {hero}"

    def opening(self, rng):
        there = f"{PLACES[self.place]} {an(self.place)}"
        called = f" named {self.name}" if self.name else ""
        hero = f"{an(self.adj)} {self.hero}{called}"
        return rng.choice([
            f"Once upon a time there was {hero} who lived {there}.",
            f"Once upon a time, {hero} lived {there}.",
            f"There once was {hero} who lived {there}.",
            f"Long ago, {hero} lived {there}.",
            f"{cap(an(self.place))} was the home of {hero}.",
        ])


def friend(rng, hero):
    return rng.choice([a for a in list(ANIMALS) + BEINGS if a != hero])


def ending(rng, c, extra=()):
    if c.adj == "lonely" and rng.random() < 0.5:
        return f"From that day on, {c.who} was never lonely again."
    return rng.choice(list(extra) + [
        f"{cap(c.who)} went home and slept well that night.",
        f"And {c.who} smiled all the way home.",
        f"That evening, {c.who} was very happy.",
        f"Everyone {c.at} still talks about {c.who}.",
    ])


def plot_lost(rng, c, thing=None):
    thing = thing or rng.choice(CARRY)
    t, other = f"{rng.choice(THING_ADJ)} {thing}", friend(rng, c.hero)
    return [
        rng.choice([f"One day, {c.who} lost {an(t)} {c.at}.", f"One morning, {c.who} could not find {c.his} {t}."]),
        rng.choice([f"{cap(c.he)} looked everywhere, but the {thing} was gone.",
                    f"{cap(c.he)} searched all day and became very tired."]),
        rng.choice([f"Then {an(other)} came along and offered to help.", f"{cap(an(other))} saw this and wanted to help.",
                    f"At last {c.he} asked {an(other)} for help."]),
        rng.choice([f"Together they found the {thing} under a leaf.", f"The {other} found the {thing} behind a stone.",
                    f"Soon the {other} found the {thing} near the {c.place}."]),
        ending(rng, c, [f"{cap(c.who)} thanked the {other}, and they became good friends."])]


def plot_found(rng, c, thing=None):
    thing = thing or rng.choice(CARRY)
    t = f"{rng.choice(THING_ADJ)} {thing}"
    other = friend(rng, c.hero)
    return [
        rng.choice([f"One day, {c.who} found {an(t)} {c.at}.", f"One morning, {c.he} saw {an(t)} {c.at}."]),
        rng.choice([f'"Who has lost this {thing}?" asked {c.who}.', f"{cap(c.he)} wondered whose {thing} it was.",
                    f"{cap(c.he)} had never seen such a {thing} before."]),
        rng.choice([f"{cap(c.he)} carried the {thing} from door to door and asked everyone.",
                    f"{cap(c.he)} waited {c.at} until the sun went down."]),
        rng.choice([f"It belonged to {an(other)}, who had been looking for it all day.",
                    f"At last {an(other)} came and cried with joy, because it had lost the {thing}."]),
        ending(rng, c, [f"The {other} thanked {c.who} and gave {c.him} a warm cake."])]


def plot_friend(rng, c, other=None):
    other = other or friend(rng, c.hero)
    return [
        rng.choice([f"{cap(c.he)} had no friends and often felt alone.", f"{cap(c.who)} wanted to have a friend.",
                    f"Every day {c.he} played alone {c.at}."]),
        rng.choice([f"One day, {c.he} met {an(other)} {c.at}.", f"One morning, {an(other)} came to the {c.place}."]),
        rng.choice([f'"Would you like to play with me?" asked the {other}.',
                    f"The {other} was lonely too, so they began to talk.",
                    f"At first {c.who} was afraid, but the {other} was kind."]),
        rng.choice([f"They played together until the stars came out.", f"They told each other stories and laughed a lot.",
                    f"They shared some food and sang a song."]),
        ending(rng, c, [f"From then on, {c.who} and the {other} were best friends."])]


def plot_weather(rng, c, _=None):
    other = friend(rng, c.hero)
    return [
        rng.choice([f"One day, dark clouds came over the {c.place} and it began to rain.",
                    f"One night, a strong wind blew over the {c.place}.", f"One winter, deep snow lay around the {c.place}."]),
        rng.choice([f"{cap(c.he)} was cold and afraid.", f"{cap(c.who)} did not know where to go."]),
        rng.choice([f'"Come in!" called {an(other)} from a warm little house.',
                    f"Then {c.he} saw a light, and there stood {an(other)}.",
                    f"{cap(an(other))} heard {c.him} and opened the door."]),
        rng.choice([f"They sat by the fire and drank hot milk.", f"They shared a bowl of soup and waited together."]),
        rng.choice([f"In the morning the sun was shining over the {c.place} again.",
                    f"When the sky was clear, {c.who} thanked the {other} and went home.",
                    f"Since then, {c.who} has visited the {other} every week."])]


def plot_journey(rng, c, _=None):
    goal = rng.choice([p for p in PLACES if p != c.place])
    return [
        rng.choice([f"{cap(c.who)} wanted to see the {goal}.", f"{cap(c.he)} dreamed of going to the {goal}."]),
        rng.choice([f"So one morning {c.he} left the {c.place} and started to walk.",
                    f"One day {c.he} packed some bread and left the {c.place}."]),
        rng.choice([f"The way was long, but {c.he} did not give up.", f"On the way {c.he} asked {an(friend(rng, c.hero))} where to go."]),
        rng.choice([f"After three days {c.he} reached the {goal}.", f"At last {c.he} stood before the {goal}, and it was beautiful."]),
        rng.choice([f"But soon {c.who} missed the {c.place} and went happily home.",
                    f"When {c.he} came back to the {c.place}, {c.he} had many stories to tell."])]


def plot_far(rng, c, thing):
    verb = FAR[thing]
    t = f"{rng.choice(['bright', 'big', 'strange', 'beautiful', 'little'])} {thing}"
    return [
        rng.choice([f"One evening, {an(t)} {verb} the {c.place}.", f"One day, {an(t)} {verb} the {c.place}."]),
        rng.choice([f"{cap(c.who)} looked at the {thing} and wondered about it.", f"{cap(c.he)} had never seen such {an(thing)}."]),
        rng.choice([f'"Where do you come from?" {c.he} asked the {thing}.', f"{cap(c.he)} sat down {c.at} and watched the {thing}."]),
        rng.choice([f'"I come from far away," said the {thing}, "and I will stay with you for a while."',
                    f"It seemed to {c.him} that the {thing} was smiling."]),
        ending(rng, c, [f"Since then, {c.who} has dreamed of the {thing} every night."])]


PLOTS = [plot_lost, plot_found, plot_friend, plot_weather, plot_journey]


def story(rng, hero, place=None, thing=None, other=None, name=None, brief=False):
    c = Cast(rng, hero, place, name)
    if thing in FAR:
        body = plot_far(rng, c, thing)
    elif thing:
        body = rng.choice([plot_lost, plot_found])(rng, c, thing)
    elif other:
        body = plot_friend(rng, c, other)
    else:
        body = rng.choice(PLOTS)(rng, c)
    if brief:
        body = [body[0], body[-1] if "friend" not in body[-1] else ending(rng, c)]
    return [c.opening(rng)] + body


COUPLETS_A = [
    "O little {n}, so light and free,\nyou rest beside the old oak tree.",
    "I saw a {n} one summer day,\nit looked at me and ran away.",
    "The {n} is here, the {n} is near,\nthe sweetest sound for me to hear.",
    "When morning comes, the {n} will rise\nbeneath the wide and open skies.",
    "A {n} came walking down the lane\nin golden sun and silver rain.",
    "My {n} and I, we like to go\nwhere all the gentle breezes blow.",
]
COUPLETS_B = [
    "The moon is high, the night is deep,\nand now the {n} may go to sleep.",
    "I love the {n}, I always will,\nas long as stars shine on the hill.",
    "And if you ask me what is true:\nthe {n} is dreaming here of you.",
    "So sing a song and dance along,\nfor with the {n} you can't go wrong.",
    "The day is done, the wind is still,\nthe {n} is sleeping on the hill.",
]


def poem(rng, noun):
    text = rng.choice(COUPLETS_A) + "\n" + rng.choice(COUPLETS_B)
    if noun[0] in "aeiou":
        text = text.replace("a {n}", "an {n}").replace("A {n}", "An {n}")
    return text.replace("{n}", noun)


def sentence(rng, noun):
    adj, place = rng.choice(ADJ), rng.choice(list(PLACES))
    if noun in OBJECTS:
        adj = rng.choice(["old", "beautiful", "strange", "little", "lovely"])
        return rng.choice([f"There is {an(adj)} {noun} {PLACES[place]} the {place}.",
                           f"Everyone {PLACES[place]} the {place} looked at the {adj} {noun}."])
    return rng.choice([f"The {adj} {noun} sat {PLACES[place]} the {place} and looked at the sky.",
                       f"{cap(an(adj))} {noun} walked slowly past the {place}.",
                       f"Every morning, the {noun} goes to the {place}.",
                       f"I saw {an(adj)} {noun} {PLACES[place]} the {place} today."])
