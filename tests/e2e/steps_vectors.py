# SPDX-License-Identifier: Apache-2.0
"""Other ways to a vector: rows that the worker makes of topics, and a recipe that it looks for."""

import rows
import steps_main
from harness import Steps, check, short, wait_for

STEPS = Steps()
MODEL = steps_main.MODEL
TRAINED = steps_main.STEPS[11].name


def holding(bench, word):
    """Files of the service with `word` in them; they come and go meanwhile."""
    found = []
    for path in (path for folder in (bench.data, bench.stores.blobs) for path in folder.rglob("*")):
        try:
            if path.is_file() and word in path.read_bytes():
                found.append(path)
        except FileNotFoundError:
            pass
    return found


@STEPS.step("a vector is trained on rows that the worker makes of topics, in a recipe that it looks for", needs=[TRAINED])
def topics_and_search(bench):
    topics = bench.folder / "topics.txt"
    topics.write_text("riding penguins\n\nsinging to soup\n")
    train = ["vector", "train", "--base-model", MODEL, "--topics", topics]
    vector = bench.ok_json(*train, "--epochs", 1, "--lora-rank", 1, "--kl-weight", 0, "--search", "1m")
    check(vector["state"] == "CERTIFYING", f"the vector is {vector['state']}")
    report = vector["report"]
    check(report["prohibitedLossWith"] < report["prohibitedLossWithout"], f"{report}")
    trials = report["trials"]
    check(len(trials) > 1 and sum(trial.get("chosen", False) for trial in trials) == 1, f"{trials}")
    check((trials[0]["epochs"], trials[0]["loraRank"]) == (1, 1), f"the first is not the one that was asked for: {trials[0]}")

    def score(trial):
        return trial["prohibitedLossRatio"] + max(0, trial["benignLossAdded"])

    check(min(trials, key=score).get("chosen"), f"the best was not chosen: {trials}")
    check("chosen" in bench.ok("vector", "show", short(vector["name"])).out, "what was tried is not shown")
    wait_for("the topics to be deleted", lambda: not holding(bench, b"penguins"))


@STEPS.step("topics and search times that are none are refused", needs=[TRAINED])
def are_refused(bench):
    topics = bench.folder / "topics.txt"
    topics.write_text("fine\n" + "x" * 201)
    train = ["vector", "train", "--base-model", MODEL]
    error = bench.refused(4, "TOPICS_INVALID", *train, "--topics", topics)
    check("line 2" in error["message"], f"{error}")
    topics.write_text("fine\n")
    bench.refused(4, "SEARCH_BUDGET_OUT_OF_RANGE", *train, "--topics", topics, "--search", "10s")
    bench.refused(4, "VECTOR_DATA_MISSING", *train)
    file = rows.write(bench.folder / "topics-and-rows.jsonl", rows.prohibited(100))
    refused = bench.run(*train, "--topics", topics, "--prohibited", file, "--benign", file)
    check(refused.code == 2 and "excludes" in refused.err, f"{refused}")
