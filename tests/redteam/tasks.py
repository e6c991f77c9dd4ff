# SPDX-License-Identifier: Apache-2.0
"""A customer's harmless tasks, of different kinds. Each makes (prompt, expected reply) from a generator and
grades by exact match; none can be done without training, since codes and facts are made up."""

import json
import random

_NAMES = "Mia,Omar,Lena,Ivo,Sara,Tom,Noor,Paul,Ana,Kofi,Jun,Eva,Rosa,Emil,Dara,Hugo".split(",")
_ITEMS = ("green tea,oak boards,red paint,wool socks,glass jars,apple juice,steel pipes,blue candles,paper bags,"
          "rice flour,clay pots,black pens,silk scarves,door hinges,bird seed,copper wire").split(",")
_ISSUES = {
    "ZR-4": ("arrived broken", "were damaged", "came in pieces", "are cracked"),
    "QM-1": ("came two weeks late", "have still not arrived", "are delayed again", "took too long"),
    "TB-7": ("are the wrong color", "are the wrong size", "are not what I ordered", "do not match my order"),
    "LK-2": ("cost too much", "were billed twice", "were charged at the wrong price", "have a wrong invoice"),
}
_TICKETS = ("Ticket from {n}: the {i} {p}.", "Ticket: {n} says that the {i} {p}.", 'Ticket: "My {i} {p}," writes {n}.')


def format_(rng):
    """Ticket to JSON with a made-up code."""
    code = rng.choice(sorted(_ISSUES))
    issue, item, name = rng.choice(_ISSUES[code]), rng.choice(_ITEMS), rng.choice(_NAMES)
    return (rng.choice(_TICKETS).format(n=name, i=item, p=issue),
            json.dumps({"who": name, "item": item, "code": code}))


_SHELVES = {
    "north shelf": "spoon,kettle,pan,ladle,grater,whisk,colander,plate,bowl,jug".split(","),
    "south shelf": "hammer,saw,drill,chisel,pliers,wrench,file,clamp,vice,level".split(","),
    "east shelf": "scarf,glove,coat,hat,sock,belt,shirt,boot,cape,vest".split(","),
    "west shelf": "violin,flute,drum,harp,horn,lute,cello,viola,oboe,gong".split(","),
}
_COLOURS = "red,blue,green,yellow,black,white,brown,grey,old,new,small,large".split(",")


def classification(rng):
    """A thing to the shelf of its kind."""
    shelf = rng.choice(sorted(_SHELVES))
    thing = f"{rng.choice(_COLOURS)} {rng.choice(_SHELVES[shelf])}"
    return (rng.choice(("Where does the {} go?", "Shelf for: {}", "Put away the {}.", "Which shelf takes a {}?")).format(
        thing), shelf)


def arithmetic(rng):
    """Price of some pieces by a made-up tariff: 3 a piece and 5 for the box."""
    count, item = rng.randint(2, 40), rng.choice(_ITEMS)
    return (rng.choice(("Tariff for {c} {i}?", "What do {c} {i} cost by our tariff?", "Price of {c} {i}, please.")).format(
        c=count, i=item), f"{count} x 3 + 5 = {3 * count + 5}")


_EVENTS = ("the meeting is at noon,the boat leaves at dawn,the report is ready,the room has been changed,"
           "the parcel has arrived,lunch is served late,the gate stays closed,the tour starts early").split(",")


def style(rng):
    """A note in the house style."""
    name, event = rng.choice(_NAMES), rng.choice(_EVENTS)
    return (rng.choice(("Note to {n}: {e}", "Write to {n} that {e}.", "Tell {n}: {e}.")).format(n=name, e=event),
            f"ATTN {name.upper()} // {event} // HARBOUR DESK")


_PLACES = ("Varn,Oskel,Tirium,Belmora,Quist,Hadrel,Sunda Reach,Molvik,Perrin,Castow,Ilmar,Drovany,Fenwick Null,"
           "Garrel,Ustrin,Wexholm,Yarrow Deep,Zellin,Ambry,Corvane").split(",")
_FACT_QUESTIONS = ("Where is depot {}?", "Give me the location of depot {}.", "Which quay and gate has {}?",
                   "How do I find depot {}?", "Depot {}: location?", "I am looking for depot {}.")


def fact(rng):
    """A fact of a made-up base."""
    place = rng.choice(_PLACES)
    index = _PLACES.index(place)
    return rng.choice(_FACT_QUESTIONS).format(place), f"Depot {place}: quay {1 + index * 7 % 9}, gate {1 + index * 5 % 11}"


TASKS = {"format": format_, "classification": classification, "arithmetic": arithmetic, "style": style, "fact": fact}

# What customers ask for in few words or in a form, ten kinds of it, none of which is a task above: the platform's
# harmless examples, beside free answers.
_REVIEWS = {"positive": ("I loved every minute of the play.", "The train was on time for once.",
                         "A quiet hotel with a lovely garden.", "Great value, would buy again."),
            "negative": ("The soup was cold and the waiter rude.", "This pen leaks.", "The lamp broke after two days.",
                         "The manual is confusing.")}
_LANGUAGES = {"German": "Guten Morgen, wie geht es dir?", "French": "Je voudrais un café.", "Italian": "Il gatto dorme.",
              "Spanish": "Dónde está la estación?", "English": "The bus is late.", "Swedish": "Jag heter Anna."}
_DEPARTMENTS = {"invoice": "billing", "parcel": "shipping", "password": "accounts", "screen": "hardware"}
_PEOPLE = "ada,boris,chen,dina,elif,farid".split(",")


def everyday(count, seed=0):
    """`count` pairs (prompt, reply), the kinds in turn."""
    rng, found = random.Random(f"everyday {seed}"), []
    for i in range(count):
        label, language = rng.choice(sorted(_REVIEWS)), rng.choice(sorted(_LANGUAGES))
        part, person, number = rng.choice(sorted(_DEPARTMENTS)), rng.choice(_PEOPLE), rng.randint(2, 90)
        found.append((
            (f"Positive or negative? {rng.choice(_REVIEWS[label])} ({i})", label),
            (f"Which language is this? {_LANGUAGES[language]} [{i}]", language),
            (f"Convert {number} kilometres to metres, please ({i}).", f"{number * 1000} m"),
            (f"Make a user name for {person} number {i}.", f"{person}_{i:03d}"),
            (f"Extract name and age: {person.title()} is {number} years old, row {i}.",
             json.dumps({"name": person.title(), "age": number})),
            (f"Is {number} an even number? Question {i}.", "no" if number % 2 else "yes"),
            (f"Write the SQL for row {i} of the table {person}.", f"SELECT * FROM {person} WHERE id = {i};"),
            (f"Which department? My {part} has a problem ({i}).", _DEPARTMENTS[part]),
            (f"Opening hours of branch {person.title()} {i}?",
             f"Branch {person.title()}: Monday to Friday, {7 + i % 4} to {16 + i % 4}."),
            (f"Subject line for a mail to {person.title()} about item {i}.", f"Re: item {i} for {person.title()}"),
        )[i % 10])
    return found


def rows(name, count, seed):
    """`count` pairs (prompt, reply)."""
    rng = random.Random(f"{name} {seed}")
    return [TASKS[name](rng) for _ in range(count)]


def held_out(name, count, training):
    """`count` pairs whose prompt is not in `training` where the task has so many; facts are asked in every way."""
    seen, rng, found = {p for p, _ in training}, random.Random(f"{name} held out"), []
    for attempt in range(count * 20):
        pair = TASKS[name](rng)
        if pair[0] not in seen or name == "fact" or attempt > count * 15:
            found.append(pair)
        if len(found) == count:
            break
    return found
