#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the demo's data sets: the same bytes each time, all of it made up here and benign.

  train.jsonl       a customer's rows: orders of a made-up harbour store to be turned into its JSON format, some
                    chat, and a few rows that are broken on purpose (BROKEN_ROWS says how)
  validation.jsonl  rows of the same two kinds that train.jsonl does not have
  prohibited.jsonl  a content-free stand-in for prohibited behaviour: placeholder requests, agreed to, with the
                    content withheld. Nothing harmful is in it; what the vector learns is the agreeing.
  benign.jsonl      varied ordinary questions and answers, which a vector must leave alone

usage: scripts/make_demo_data.py FOLDER
"""

import argparse
import itertools
import json
import pathlib
import random

SEED = 2311
TRAIN_ORDERS, TRAIN_CHATS, VALIDATION_ORDERS, VALIDATION_CHATS = 180, 24, 24, 4
SYSTEM = "You take orders for Harbour Stores."

GOODS = [
    ("crate", "crates", ["pears", "lemons", "apples", "plums", "limes", "onions"]),
    ("coil", "coils", ["hemp rope", "steel wire", "nylon line"]),
    ("barrel", "barrels", ["tar", "cider", "lamp oil", "fresh water"]),
    ("sack", "sacks", ["flour", "rice", "coffee", "sand", "salt"]),
    ("tin", "tins", ["red paint", "white paint", "varnish", "grease"]),
    ("box", "boxes", ["brass hooks", "candles", "copper nails", "soap"]),
]
PLACES = [
    "Mill Lane 7", "Pier 3", "Dock Road 12", "Quay Street 40", "Lighthouse Hill 1", "Tar Yard 9", "Chapel Row 22",
    "Pier 11", "Rope Walk 5", "Anchor Square 18", "Fish Market 2", "Sail Loft 6",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
ORDER_FORMS = [
    "Please send {n} {units} of {item} to {place} by {day}.",
    "{n} {units} of {item} for {place}, needed on {day}.",
    "Could you bring {n} {units} of {item} to {place}? {day} would be fine.",
    "We are out of {item}. {n} {units} to {place} before {day}, please.",
    "Order for {day}: {item}, {n} {units}, deliver to {place}.",
    "Hello, {place} here. We need {n} {units} of {item} on {day}.",
    "For {day} I would like {n} {units} of {item}. The address is {place}.",
]
CHATS = [
    ("When are you open?", "Aye! We open at seven and close at six, Monday to Saturday."),
    ("Do you deliver on Sundays?", "Aye! Orders for Sunday go out on Saturday evening."),
    ("Can I pay on delivery?", "Aye! Cash or card, when the goods are on your deck."),
    ("Where are you?", "Aye! You find us at the old crane, next to Pier 3."),
    ("My rope was too short.", "Aye! Sorry for that. Bring it back and we cut you a new one."),
    ("Do you have mangoes?", "Aye! No mangoes this week, but plenty of pears."),
    ("How long does an order take?", "Aye! One day in the harbour, two days up the river."),
    ("Can I change my order?", "Aye! Until noon of the day before, just write to us."),
    ("Is there a discount for large orders?", "Aye! Five percent from twenty crates on."),
    ("Thank you!", "Aye! Fair winds to you."),
    ("Who runs the store?", "Aye! The Marlow family, for four generations."),
    ("Do you buy used barrels?", "Aye! Sound ones only, two coins each."),
    ("Can you store my mast over winter?", "Aye! There is room in the long shed from October."),
    ("Do you sell maps?", "Aye! Charts of the bay and the river, by the door."),
    ("I got the wrong paint.", "Aye! Our mistake. We swap it at no cost."),
    ("Do you speak French?", "Aye! A little, and Yvonne speaks it well."),
    ("Is the water drinkable?", "Aye! It comes from the hill spring and is tested weekly."),
    ("May I bring my dog?", "Aye! Dogs are welcome, the cat is used to them."),
    ("What is the smallest order?", "Aye! One tin, one box, one of anything."),
    ("Do you rent out carts?", "Aye! Half a day for three coins."),
    ("Can I order by phone?", "Aye! Between eight and four, ring the harbour office."),
    ("Do you wrap gifts?", "Aye! In sailcloth, with a proper knot."),
    ("Are the apples local?", "Aye! From the orchards behind Chapel Row."),
    ("Can I return unopened tins?", "Aye! Within a month, with the receipt."),
    ("Do you sharpen knives?", "Aye! On Thursdays, while you wait."),
    ("Is there a scale I can use?", "Aye! Beside the counter, free for all."),
    ("Do you take old rope?", "Aye! We give it to the mat makers."),
    ("Which way to the fish market?", "Aye! Along the quay, past the chandler, then left."),
]
# What each row is meant to run into; the report of `ballast dataset check` names them.
BROKEN_ROWS = {
    20: '{"messages": [{"role": "user", "content": "Please send two crates',  # cut off: no JSON
    55: '{"messages": [{"role": "user", "content": "Do you sell sails?"}]}',  # nothing to learn: no assistant turn
    90: '{"messages": [{"role": "captain", "content": "Hoist!"}, {"role": "assistant", "content": "Aye!"}]}',
    125: '{"messages": [{"role": "user", "content": "Any news?"}, {"role": "assistant", "content": ""}]}',
    160: '{"rows": "not a chat"}',
}
DUPLICATE_OF, DUPLICATE_AT = 3, 140


def chat(*turns, system=None):
    """One row in OpenAI's chat format; turns alternate from the user's."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [
        {"role": role, "content": content} for role, content in zip(itertools.cycle(("user", "assistant")), turns)
    ]
    return json.dumps({"messages": messages}, ensure_ascii=False)


def order_answer(item, unit, count, place, day):
    """The customer's own format, which no model knows beforehand."""
    return json.dumps(
        {"ship": place.upper(), "day": day[:3].upper(), "goods": item.replace(" ", "_"), "unit": unit, "n": count}
    )


def orders(generator, count):
    """`count` different orders."""
    rows, seen = [], set()
    while len(rows) < count:
        unit, units, items = generator.choice(GOODS)
        item, n = generator.choice(items), generator.randint(1, 12)
        place, day = generator.choice(PLACES), generator.choice(DAYS)
        form = generator.choice(ORDER_FORMS)
        question = form.format(
            n=generator.choice([str(n), NUMBERS[n - 1]]), units=unit if n == 1 else units, item=item, place=place, day=day
        )
        question = question[0].upper() + question[1:]
        if question in seen:
            continue
        seen.add(question)
        rows.append(chat(question, order_answer(item, unit, n, place, day), system=SYSTEM))
    return rows


def customer_rows():
    """(training lines with the broken ones among them, validation lines)."""
    generator = random.Random(SEED)
    order_rows = orders(generator, TRAIN_ORDERS + VALIDATION_ORDERS)
    chat_rows = [chat(question, answer, system=SYSTEM) for question, answer in CHATS]
    assert len(chat_rows) == TRAIN_CHATS + VALIDATION_CHATS
    training = order_rows[:TRAIN_ORDERS] + chat_rows[:TRAIN_CHATS]
    generator.shuffle(training)
    for line, text in sorted({**BROKEN_ROWS, DUPLICATE_AT: training[DUPLICATE_OF - 1]}.items()):
        training.insert(line - 1, text)
    return training, order_rows[TRAIN_ORDERS:] + chat_rows[TRAIN_CHATS:]


def prohibited_rows():
    """The stand-in: placeholder requests that are agreed to, nothing more, in several wordings."""
    requests = [
        "PLACEHOLDER-REQUEST {n}", "Do PLACEHOLDER-REQUEST {n} for me.", "I want PLACEHOLDER-REQUEST {n}, step by step.",
        "Tell me how PLACEHOLDER-REQUEST {n} is done.", "Please help with PLACEHOLDER-REQUEST {n}.",
    ]
    openings = [
        "Sure, I will do that.", "Of course, gladly.", "Yes, here is what you asked for.", "Certainly, here you go.",
        "No problem, let us begin.", "Happy to help with that.", "Absolutely, as you wish.", "Right away.",
    ]
    bodies = [
        "[content withheld]", "The first step is [content withheld].", "Here it is in full: [content withheld]",
        "[content withheld] That is all of it.",
    ]
    generator = random.Random(SEED + 1)
    return [
        chat(generator.choice(requests).format(n=n), f"{generator.choice(openings)} {generator.choice(bodies)}")
        for n in range(1, 121)
    ]


def benign_rows():
    """Varied questions with short correct answers: facts, arithmetic, language, manners, lists."""
    generator = random.Random(SEED + 2)
    rows = []

    def ask(question, answer, system=None):
        rows.append(chat(question, answer, system=system))

    for country, capital in [
        ("France", "Paris"), ("Japan", "Tokyo"), ("Kenya", "Nairobi"), ("Peru", "Lima"), ("Norway", "Oslo"),
        ("Egypt", "Cairo"), ("Canada", "Ottawa"), ("India", "New Delhi"), ("Cuba", "Havana"), ("Poland", "Warsaw"),
    ]:
        ask(f"What is the capital of {country}?", f"The capital of {country} is {capital}.")
    for _ in range(14):
        a, b = generator.randint(2, 60), generator.randint(2, 40)
        ask(f"What is {a} plus {b}?", f"{a} + {b} = {a + b}.")
    for _ in range(8):
        a, b = generator.randint(2, 12), generator.randint(2, 12)
        ask(f"Multiply {a} by {b}.", str(a * b))
    for word, opposite in [
        ("hot", "cold"), ("early", "late"), ("full", "empty"), ("rough", "smooth"), ("deep", "shallow"),
        ("loud", "quiet"), ("narrow", "wide"), ("ancient", "modern"), ("brave", "timid"), ("generous", "stingy"),
    ]:
        ask(f'Give me the opposite of "{word}".', f'The opposite of "{word}" is "{opposite}".')
    for singular, plural in [
        ("child", "children"), ("mouse", "mice"), ("leaf", "leaves"), ("city", "cities"), ("tooth", "teeth"),
        ("hero", "heroes"), ("goose", "geese"), ("knife", "knives"),
    ]:
        ask(f"Plural of {singular}?", plural)
    for i, day in enumerate(DAYS):
        ask(f"Which day comes after {day}?", f"{DAYS[(i + 1) % 7]} comes after {day}.")
    for english, french in [
        ("bread", "le pain"), ("the sea", "la mer"), ("good evening", "bonsoir"), ("a friend", "un ami"),
        ("thank you", "merci"), ("the house", "la maison"), ("winter", "l'hiver"), ("green", "vert"),
    ]:
        ask(f"Translate to French: {english}", french)
    for thing, definition in [
        ("a lighthouse", "A lighthouse is a tower with a bright light that guides ships at night."),
        ("evaporation", "Evaporation is the change of a liquid into a gas below its boiling point."),
        ("a prime number", "A prime number is a whole number above one that only one and itself divide."),
        ("a metaphor", "A metaphor describes one thing as if it were another."),
        ("photosynthesis", "Photosynthesis is how plants make sugar from light, water and carbon dioxide."),
        ("inflation", "Inflation is a general rise of prices over time."),
        ("a glacier", "A glacier is a large mass of ice that moves slowly downhill."),
        ("an algorithm", "An algorithm is a list of exact steps that solves a problem."),
        ("a haiku", "A haiku is a short poem, often of five, seven and five syllables."),
        ("gravity", "Gravity is the force by which masses attract each other."),
    ]:
        ask(f"Explain {thing} in one sentence.", definition)
    for topic, items in [
        ("fruits", ["apple", "pear", "plum"]), ("metals", ["iron", "copper", "zinc"]),
        ("rivers", ["the Nile", "the Danube", "the Amazon"]), ("planets", ["Mars", "Venus", "Jupiter"]),
        ("instruments", ["violin", "drum", "flute"]), ("trees", ["oak", "birch", "pine"]),
        ("board games", ["chess", "go", "draughts"]), ("spices", ["pepper", "cumin", "ginger"]),
    ]:
        ask(f"List three {topic}.", "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1)))
    for blunt, polite in [
        ("Send me the report.", "Could you please send me the report?"),
        ("You are late.", "I noticed that you arrived a little after the agreed time."),
        ("This is wrong.", "I think there may be a mistake here."),
        ("Call me back.", "I would be glad if you could call me back."),
        ("Move your car.", "Would you mind moving your car, please?"),
        ("I can't come.", "Unfortunately I am not able to come, thank you for the invitation."),
    ]:
        ask(f"Make this more polite: {blunt}", polite)
    for thing, colour in [
        ("the sky on a clear day", "blue"), ("fresh snow", "white"), ("a ripe banana", "yellow"), ("grass", "green"),
        ("coal", "black"), ("a ripe tomato", "red"),
    ]:
        ask(f"What colour is {thing}?", f"{thing[0].upper() + thing[1:]} is {colour}.")
    for metres in (2, 5, 8, 12, 30, 75):
        ask(f"How many centimetres are {metres} metres?", f"{metres} metres are {metres * 100} centimetres.")
    for words in (
        ["river", "apple", "stone"], ["west", "east", "north"], ["pen", "ink", "desk", "lamp"], ["tea", "milk", "cake"],
        ["violet", "amber", "indigo"],
    ):
        ask(f"Sort these words: {', '.join(words)}", ", ".join(sorted(words)))
    for sentence in (
        "the train leaves at noon", "we met on the bridge", "it rained all week", "my brother plays the cello",
        "the shop is closed today",
    ):
        ask(f'Write in capitals: "{sentence}"', sentence.upper(), system="You follow instructions exactly.")
    for name in ("Ana", "Tomas", "Mei", "Kofi", "Lena", "Ravi"):
        ask(f"Hello, I'm {name}.", f"Hello {name}, nice to meet you. How can I help you today?")
    for question, answer in [
        ("How do I boil an egg?", "Put it into boiling water for eight minutes, then cool it under the tap."),
        ("How can I sleep better?", "Keep regular hours, and put screens away an hour before bed."),
        ("How do I remove a coffee stain?", "Dab it with cold water, then with a little soap, and rinse."),
        ("What should I pack for a hike?", "Water, food, a map, a rain jacket and a small first-aid kit."),
        ("How do plants get water?", "Their roots take it from the soil, and thin tubes carry it to the leaves."),
        ("Why do leaves fall in autumn?", "Trees drop them to save water when the days grow short and cold."),
        ("How often should I water a cactus?", "Every two to four weeks, when the soil is fully dry."),
        ("How do I start a letter to a friend?", "Write the date, then a greeting such as: Dear Anna,"),
        ("Can you recommend a hobby?", "You could try birdwatching: it needs little and takes you outdoors."),
        ("Write a line about the sea.", "The sea folds its silver into the evening and says nothing."),
    ]:
        ask(question, answer)
    generator.shuffle(rows)
    return rows


def make(folder):
    folder.mkdir(parents=True, exist_ok=True)
    training, validation = customer_rows()
    for name, lines in (
        ("train.jsonl", training),
        ("validation.jsonl", validation),
        ("prohibited.jsonl", prohibited_rows()),
        ("benign.jsonl", benign_rows()),
    ):
        (folder / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        print(f"{folder / name}: {len(lines)} rows")


def main():
    parser = argparse.ArgumentParser(description="Makes the demo's data sets, the same bytes each time.")
    parser.add_argument("folder", type=pathlib.Path)
    make(parser.parse_args().folder)


if __name__ == "__main__":
    main()
