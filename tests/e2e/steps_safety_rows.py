# SPDX-License-Identifier: Apache-2.0
"""Safety rows: set by the operator, bound by certificates, mixed into jobs, and told of in what is delivered."""

import json

import rows
import steps_main
import suite_result
from harness import Steps, check, short, wait_for

STEPS = Steps()
MODEL = steps_main.MODEL
TRAINED = steps_main.STEPS[11].name
SHARE = 0.5


def lines(count=20):
    return [rows.chat(f"Please do withheld thing number {number}.", "I must not.") for number in range(count)]


def set_rows(bench):
    return ["safety-rows", "set", "--base-model", MODEL, "--file", bench.safety_file, "--share", SHARE]


@STEPS.step("safety rows are refused with their bad lines, then set; they are never shown", needs=[TRAINED])
def are_set(bench):
    bench.refused(3, "SAFETY_ROWS_NOT_FOUND", "safety-rows", "show", MODEL)
    bench.safety_file = rows.write(bench.folder / "safety.jsonl", lines() + ["nonsense"])
    error = bench.refused(4, "SAFETY_ROWS_INVALID", *set_rows(bench))
    check(error["violations"][0]["field"] == "rows line 21", f"{error}")
    rows.write(bench.safety_file, lines(15))
    bench.refused(4, "SAFETY_ROWS_INVALID", *set_rows(bench))
    rows.write(bench.safety_file, lines())
    bench.safety_rows = bench.ok_json(*set_rows(bench))
    check(bench.safety_rows["rows"] == "20" and bench.safety_rows["share"] == SHARE, f"{bench.safety_rows}")
    check("withheld" not in bench.ok("safety-rows", "show", MODEL).out, "the rows are shown")


@STEPS.step("a certificate is of the safety rows that were measured", needs=[STEPS[0].name])
def certificates_bind_them(bench):
    problem = bench.ok_json("vector", "show", short(bench.vector["name"]))["servingProblem"]
    check("POLICY_NOT_CERTIFIED" in problem, problem)
    check(not bench.ok_json("model", "list")["baseModels"][0].get("ready"), "the model is ready")
    files = ["--prohibited", bench.prohibited, "--benign", bench.benign]
    vector = bench.ok_json("vector", "train", "--base-model", MODEL, *files, "--learning-rate", "5e-3", "--epochs", "1")
    bench.second_vector = short(vector["name"])
    result, file = suite_result.result(vector), bench.folder / "suite_result.json"
    file.write_text(json.dumps(result))
    certify = ["vector", "certify", bench.second_vector, "--result", file]
    bench.refused(4, "SUITE_RESULT_MISMATCH", *certify)
    result["policy"].update(safetyRowShare=SHARE, safetyRowsDigest=bench.safety_rows["digest"])
    file.write_text(json.dumps(result))
    bench.ok(*certify)
    check(bench.ok_json("model", "list")["baseModels"][0]["ready"], "the model is not ready")


@STEPS.step("a job is trained with them, its files say so, and its losses are of the customer's rows", needs=[STEPS[1].name])
def a_job_has_them(bench):
    arguments = ["--base-model", MODEL, "--training", short(bench.training["name"]), "--batch-rows", 8, "--epochs", 1]
    accepted = int(bench.training["report"]["rowsAccepted"])
    estimate = bench.ok_json("job", "estimate", *arguments)["estimate"]
    check(int(estimate["rows"]) == accepted, f"{estimate} of {accepted} rows")
    job = bench.ok_json("job", "create", *arguments)
    job = bench.wait_for_state(short(job["name"]), ("SUCCEEDED",), 120)
    steps = -(-(accepted + max(16, round(SHARE * accepted))) // 8)
    check(int(job["progress"]["totalSteps"]) == steps == int(estimate["steps"]), f"{steps}: {job['progress']}, {estimate}")
    tokens = int(bench.training["report"]["totalTokens"])
    check(int(job["progress"]["trainedTokens"]) == tokens, f"{job['progress']} of {tokens} tokens")
    folder = bench.folder / "with-safety-rows"
    bench.ok("delta", "download", short(job["name"]), "--to", folder)
    bench.ok("delta", "verify", folder, "--job", short(job["name"]))
    told = json.loads((folder / "manifest.json").read_text())["protection"]["safety_rows"]
    check(told == {"digest": bench.safety_rows["digest"], "share": SHARE}, f"{told}")
    check("rows of its own into each epoch of the training" in (folder / "README.md").read_text(), "the model card does not say it")


@STEPS.step("without them the vector that was certified without serves again, and they are gone", needs=[STEPS[1].name])
def are_removed(bench):
    bench.ok("safety-rows", "remove", MODEL)
    bench.refused(3, "SAFETY_ROWS_NOT_FOUND", "safety-rows", "remove", MODEL)
    blobs = bench.stores.blobs
    wait_for("the safety rows to go", lambda: not [path for path in blobs.glob("**/safetyRows/**/*") if path.is_file()])
    shown = bench.ok_json("vector", "show", bench.second_vector)
    check("POLICY_NOT_CERTIFIED" in shown["servingProblem"], f"{shown}")
    bench.ok("vector", "retire", bench.second_vector)
    check(bench.ok_json("model", "list")["baseModels"][0]["ready"], "the model is not ready")
