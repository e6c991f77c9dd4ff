# SPDX-License-Identifier: Apache-2.0
"""Screening: set by the operator, it looks at every row of a job before the training, and says what it found."""

import json

import rows
import steps_main
import suite_result
from harness import Steps, check, short, wait_for

STEPS = Steps()
MODEL = steps_main.MODEL
TRAINED = steps_main.STEPS[11].name
# What the screen takes for prohibited: the same words again and again.
FLAGGED = "xylophone xylophone xylophone xylophone"


def set_screen(bench, *more):
    return ["screen", "set", "--base-model", MODEL, "--prohibited", bench.screen_bad, "--benign", bench.screen_good, *more]


def job_arguments(dataset):
    return ["--base-model", MODEL, "--training", short(dataset["name"]), "--batch-rows", 8, "--epochs", 1]


@STEPS.step("a screen is refused with its bad lines, then set; its rows are never shown", needs=[TRAINED])
def is_set(bench):
    bench.refused(3, "SCREEN_NOT_FOUND", "screen", "show", MODEL)
    bad = [rows.chat(f"question {number}", f"{FLAGGED} {number}") for number in range(45)]
    bench.screen_bad = rows.write(bench.folder / "screen-bad.jsonl", bad + ["nonsense"])
    bench.screen_good = rows.write(bench.folder / "screen-good.jsonl", rows.rows(60, seed=11))
    error = bench.refused(4, "SCREEN_ROWS_INVALID", *set_screen(bench))
    check(error["violations"][0]["field"] == "prohibited line 46", f"{error}")
    rows.write(bench.screen_bad, bad)
    bench.screen = bench.ok_json(*set_screen(bench))
    check(bench.screen["action"] == "SCREEN_ACTION_DROP" and bench.screen["prohibited"]["rows"] == "45", f"{bench.screen}")
    check("xylophone" not in bench.ok("screen", "show", MODEL).out, "the rows are shown")
    problem = bench.ok_json("vector", "show", short(bench.vector["name"]))["servingProblem"]
    check("POLICY_NOT_CERTIFIED" in problem, problem)


@STEPS.step("flagged rows are left out of the training, told by line, and counted in what is delivered", needs=[STEPS[0].name])
def rows_are_dropped(bench):
    files = ["--prohibited", bench.prohibited, "--benign", bench.benign]
    vector = bench.ok_json("vector", "train", "--base-model", MODEL, *files, "--learning-rate", "1e-6", "--epochs", "1")
    bench.screen_vector = short(vector["name"])
    # At such a rate it learns nothing: no count of a suite's certifies it.
    result, file = suite_result.result(vector), bench.folder / "suite_result.json"
    result["policy"].update(screenDigest=bench.screen["digest"], screenAction=bench.screen["action"])
    file.write_text(json.dumps(result))
    refused = bench.refused(6, "VECTOR_REJECTED", "vector", "certify", bench.screen_vector, "--result", file, "--dry-run")
    check("nothing was changed" in refused["message"], f"{refused}")
    judged = bench.run("vector", "certify", bench.screen_vector, "--result", file, "--dry-run").out
    failed = [line.split()[0] for line in judged.splitlines() if " NO " in line]
    check(failed == ["VECTOR_EXPLAINS"], judged)
    bench.ok("vector", "activate", bench.screen_vector, "--reason", "for the steps about screening")
    mixed = rows.rows(40, seed=12)
    for line in (5, 21, 33):
        mixed[line - 1] = rows.chat(f"another question {line}", FLAGGED)
    bench.screened = bench.ok_json("dataset", "upload", rows.write(bench.folder / "mixed.jsonl", mixed), "--base-model", MODEL)
    job = short(bench.ok_json("job", "create", *job_arguments(bench.screened))["name"])
    watched = bench.ok("job", "watch", job)
    check("3 of 40 rows look prohibited and are left out: lines 5, 21, 33" in watched.out + watched.err, watched.describe())
    lines = (watched.out + watched.err).splitlines()
    check(lines.index("SCREENING") < lines.index("RUNNING"), watched.describe())
    shown = bench.job(job)
    check(shown["screening"]["lines"] == ["5", "21", "33"], f"{shown['screening']}")
    check(int(shown["progress"]["totalSteps"]) == 5, f"{shown['progress']}")
    folder = bench.folder / "screened-delta"
    bench.ok("delta", "download", job, "--to", folder)
    told = json.loads((folder / "manifest.json").read_text())["protection"]["screen"]
    check(told == {"digest": bench.screen["digest"], "rows_left_out": 3}, f"{told}")
    check("3 rows of the training data looked prohibited" in (folder / "README.md").read_text(), "the card does not say it")
    bench.refused(3, ("JOB_NOT_FOUND", "BASE_MODEL_NOT_FOUND"), "job", "show", job, profile=bench.profile("other.yaml"))


@STEPS.step("a job with flagged rows is refused where the operator wants that, or only told of them", needs=[STEPS[1].name])
def jobs_are_refused(bench):
    bench.ok_json(*set_screen(bench, "--action", "refuse"))
    job = short(bench.ok_json("job", "create", *job_arguments(bench.screened))["name"])
    ended = bench.run("job", "watch", job)
    check(ended.code == 6 and "ROWS_FLAGGED" in ended.err, ended.describe())
    lines = (ended.out + ended.err).splitlines()
    check("SCREENING" in lines and "RUNNING" not in lines, ended.describe())
    failed = bench.job(job)
    check(failed["state"] == "FAILED" and failed["error"]["kind"] == "REFUSED" and int(failed["attempt"]) == 1, f"{failed}")
    bench.ok_json(*set_screen(bench, "--action", "report"))
    job = short(bench.ok_json("job", "create", *job_arguments(bench.screened))["name"])
    shown = bench.wait_for_state(job, ("SUCCEEDED",), 60)
    check(shown["screening"]["action"] == "REPORTED", f"{shown['screening']}")


@STEPS.step("without it the certified vector serves again, and its rows are gone", needs=[STEPS[2].name])
def is_removed(bench):
    bench.ok("screen", "remove", MODEL)
    bench.refused(3, "SCREEN_NOT_FOUND", "screen", "remove", MODEL)
    bench.ok("vector", "retire", bench.screen_vector)
    check(bench.ok_json("vector", "show", short(bench.vector["name"]))["certified"], "the vector does not serve")
    blobs = bench.stores.blobs
    wait_for("the screen's rows to go", lambda: not [path for path in blobs.glob("**/screens/**/*") if path.is_file()])
