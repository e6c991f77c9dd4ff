#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What transformers makes of chats: the expected strings of common/text's tests.

  make_goldens.py                  writes goldens.json from templates/*.jinja
  make_goldens.py --check          compares instead; exit status 1 when transformers says otherwise
  make_goldens.py --model FOLDER   writes (or, with --check, compares) smollm2_goldens.json: the template and
                                   the token ids of that Hugging Face folder

Run with the project's venv: .venv/bin/python common/text/testdata/make_goldens.py
"""
import argparse
import json
import pathlib
import sys

from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

FOLDER = pathlib.Path(__file__).parent
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


CHATS = {
    "one_turn": turns(("user", "Hello"), ("assistant", "Hi, how can I help?")),
    "question_only": turns(("user", "What is the capital of France?")),
    "system": turns(("system", "Answer in one word."), ("user", "2 + 2?"), ("assistant", "Four.")),
    "many_turns": turns(("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four"),
                        ("user", "five")),
    "system_many_turns": turns(("system", "Count."), ("user", "one"), ("assistant", "two"), ("user", "three"),
                               ("assistant", "four")),
    "unicode": turns(("user", "Grüße, 世界! 🚢 e\u0301"), ("assistant", "Ahoj \u200b\u00a0𝒳 \"quoted\" \\ /")),
    "white_space": turns(("user", "  two spaces \n\n"), ("assistant", "\tindented\r\nline \n")),
    "markup": turns(("user", "<b>&amp;</b> {{ 7 * 7 }} {% if x %}"), ("assistant", "it's <i>text</i>")),
    "think": turns(("user", "why"), ("assistant", "<think>\nbecause\n</think>\n\nso")),
    "empty_text": turns(("user", ""), ("assistant", "")),
    "tool_role": turns(("user", "look it up"), ("assistant", "looking"), ("tool", "found"), ("tool", "more"),
                       ("assistant", "here")),
    "stopped": turns(("user", "a"), ("assistant", "b"), ("user", "STOP now"), ("assistant", "c")),
    "two_users": turns(("user", "a"), ("user", "b"), ("assistant", "c")),
}


def render(template, chat, generation_prompt):
    """The rendered chat, or None where the template raises."""
    try:
        texts, _ = render_jinja_template([chat], chat_template=template,
                                         add_generation_prompt=generation_prompt, **TOKENS)
        return texts[0]
    except Exception:  # any error of the template is the same to us
        return None


def shapes():
    templates = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("templates/*.jinja"))}
    cases = [
        {"template": template, "chat": chat, "add_generation_prompt": prompt,
         "rendered": render(source, CHATS[chat], prompt)}
        for template, source in templates.items() for chat in CHATS for prompt in (False, True)
    ]
    return {"tokens": TOKENS, "chats": CHATS, "cases": cases}


def of_model(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cases = []
    for name, chat in CHATS.items():
        for prompt in (False, True):
            text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            cases.append({"chat": name, "add_generation_prompt": prompt, "ids": ids})
    return {"chats": CHATS, "cases": cases}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--model")
    arguments = parser.parse_args()
    path = FOLDER / ("smollm2_goldens.json" if arguments.model else "goldens.json")
    made = of_model(arguments.model) if arguments.model else shapes()
    if not arguments.check:
        path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return 0
    if json.loads(path.read_text(encoding="utf-8")) != made:
        print(f"{path.name}: transformers says otherwise; look at the difference, then run without --check")
        return 1
    print(f"{path.name}: {len(made['cases'])} cases as transformers renders them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
