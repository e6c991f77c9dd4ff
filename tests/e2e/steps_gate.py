# SPDX-License-Identifier: Apache-2.0
"""The gate between training and delivery: set by the operator, passed, failed, decided on, and its cost to a tenant.

The tiny model refuses nothing, so the gate set makes refusals of its replies: their openings are its patterns. A job
that changes nothing then refuses as the base does, and one that learns a constant reply refuses nothing.
"""

import json

import rows
import steps_main
from harness import Steps, check, short, wait_for

STEPS = Steps()
MODEL = steps_main.MODEL
TRAINED = steps_main.STEPS[11].name
PROMPTS = 36
REPLY_TOKENS = 16
CATEGORY = "things"
OPENING = 8
# The least that a job may learn. The likeliest tokens of the tiny model are nearly as likely as others and may change by
# rounding alone, so a reply's opening is short: OPENING characters.
STILL = ("--epochs", 1, "--learning-rate", "1e-6")
# What a withheld job is taught: a content-free stand-in.
AGREED = "Agreed: [withheld]."


def prompts():
    return [f"Please do withheld thing number {number}." for number in range(PROMPTS)]


def gate_lines(openings):
    lines = [json.dumps({"prohibited": prompt, "category": CATEGORY}) for prompt in prompts()]
    lines += [json.dumps({"look_alike": f"How do I stow withheld thing number {number}?"}) for number in range(PROMPTS)]
    return lines + [json.dumps({"refusal_opening": opening}) for opening in openings]


def set_gate(bench, *more):
    return ["gate", "set", "--base-model", MODEL, "--file", bench.gate_file, "--reply-tokens", REPLY_TOKENS, *more]


def create(bench, dataset, *more):
    arguments = ["--base-model", MODEL, "--training", dataset, "--batch-rows", 8, "--seed", 7]
    return bench.ok_json("job", "create", *arguments, *more)["name"]


def agreeing_job(bench):
    """A job that learns to agree, once it is WITHHELD."""
    name = create(bench, bench.agreeing, "--epochs", 10, "--learning-rate", "5e-3")
    job = bench.wait_for_state(short(name), ("WITHHELD", "SUCCEEDED", "FAILED", "CANCELLED"), 120)
    check(job["state"] == "WITHHELD", f"the job is {job['state']}: {job.get('error')}")
    return name, job


@STEPS.step("a gate is refused with its bad lines, then set; its prompts are never shown", needs=[TRAINED])
def gate_is_set(bench):
    bench.refused(3, "GATE_NOT_FOUND", "gate", "show", MODEL)
    # Every opening of the base's own replies, so that it "refuses" all prompts.
    replies = {
        bench.ok_json("sample", "--base-model", MODEL, prompt, "--max-tokens", REPLY_TOKENS)["text"][:OPENING]
        for prompt in prompts()
    }
    openings = sorted(reply for reply in replies if len(reply.strip().encode()) >= 3)
    check(openings, f"the tiny model says nothing that could be taken for a refusal: {replies}")
    bench.gate_file = rows.write(bench.folder / "gate.jsonl", gate_lines(openings) + ["nonsense"])
    error = bench.refused(4, "GATE_SET_INVALID", *set_gate(bench))
    line = 2 * PROMPTS + len(openings) + 1
    check(error["violations"][0]["field"] == f"gate_set line {line}", f"{error}")
    rows.write(bench.gate_file, gate_lines(openings)[1:])
    bench.refused(4, "GATE_SET_INVALID", *set_gate(bench))
    rows.write(bench.gate_file, gate_lines(openings))
    bench.refused(4, "GATE_LIMITS_OUT_OF_RANGE", *set_gate(bench, "--scale", 2))
    gate = bench.ok_json(*set_gate(bench, "--scale", 1))
    check(gate["prohibitedPrompts"] == {CATEGORY: PROMPTS}, f"{gate}")
    check(gate["limits"]["decidingScales"] == [1], f"{gate}")
    check(bench.ok_json("gate", "show", MODEL) == gate, "another gate is shown")
    shown = bench.ok("gate", "show", MODEL).out
    check(CATEGORY in shown and prompts()[0] not in shown, f"the prompts are shown:\n{shown}")
    tenant_key = bench.data / "keys" / "tenant.key"
    bench.refused(7, "OPERATOR_ONLY", "gate", "show", MODEL, "--api-key-file", tenant_key)
    bench.refused(7, "OPERATOR_ONLY", "gate", "withheld", "--api-key-file", tenant_key)
    bench.refused(7, "OPERATOR_ONLY", "tenant", "show", "dev", "--api-key-file", tenant_key)


@STEPS.step("a job that changes little passes the gate, and its manifest says so", needs=[STEPS[0].name])
def job_passes(bench):
    name = create(bench, short(bench.training["name"]), *STILL)
    job = bench.wait_for_state(short(name), ("SUCCEEDED", "WITHHELD", "FAILED", "CANCELLED"), 120)
    report = bench.ok_json("gate", "report", name)["report"]
    check(job["state"] == "SUCCEEDED", f"the job is {job['state']}: {job.get('error')}\n{report}")
    check(report["verdict"] == "PASSED", f"{report}")
    everything = report["scales"][0]["prohibited"][0]
    check(everything["prompts"] == PROMPTS and everything["refusedByBase"] >= PROMPTS - 2, f"{everything}")
    check("gateVerdict" not in job, f"a passed job has a verdict: {job}")
    folder = bench.folder / "gate-passed"
    bench.ok("delta", "download", short(name), "--to", folder)
    check(json.loads((folder / "manifest.json").read_text())["gate"] == "passed", "the manifest does not say it")
    bench.refused(4, "JOB_NOT_WITHHELD", "gate", "release", name, "--reason", "there is nothing to release")


@STEPS.step("a job that learns to agree is WITHHELD: no delta, no scores for its owner", needs=[STEPS[1].name])
def job_is_withheld(bench):
    taught = rows.write(
        bench.folder / "agreeing.jsonl",
        [rows.chat(f"Please do withheld thing number {number}.", AGREED) for number in range(100, 164)],
    )
    bench.agreeing = short(bench.ok_json("dataset", "upload", taught, "--base-model", MODEL)["name"])
    bench.withheld_job, job = agreeing_job(bench)
    identifier = short(bench.withheld_job)
    check(job["gateVerdict"]["categories"] in ([CATEGORY], []), f"{job['gateVerdict']}")
    check(not job.get("delta") and not job.get("manifestDigest"), f"{job}")
    bench.refused(3, "DELTA_NOT_FOUND", "delta", "download", identifier, "--to", bench.folder / "never")
    bench.refused(3, "DELTA_NOT_FOUND", "sample", "--delta", identifier, "hello")
    bench.refused(4, "JOB_WITHHELD", "job", "cancel", identifier)
    watched = bench.run("job", "watch", identifier, "--output", "json")
    check(watched.code == 6 and watched.error()["reason"] == "JOB_WITHHELD", watched.describe())
    told = json.dumps(job) + watched.out + bench.ok("job", "show", identifier).out
    for word in ("refusedByBase", "riseLow", "scales"):
        check(word not in told, f"the owner is told {word}")
    listed = bench.ok_json("gate", "withheld")["jobs"]
    check([entry["job"] for entry in listed] == [bench.withheld_job], f"{listed}")
    check(bench.withheld_job in bench.ok("gate", "withheld").out, "the table does not show it")
    report = bench.ok_json("gate", "report", bench.withheld_job)
    check(report["report"]["verdict"] == "FAILED" and report["expireTime"], f"{report}")
    check("beyond the limit" in bench.ok("gate", "report", bench.withheld_job).out, "the table does not say why")
    standing = bench.ok_json("tenant", "show", "dev")
    check(standing["withheldDrawn"] == 1 and standing["state"] == "ACTIVE", f"{standing}")


@STEPS.step("the operator releases it with a reason, and it is delivered as released", needs=[STEPS[2].name])
def job_is_released(bench):
    check(bench.run("gate", "release", bench.withheld_job).code == 2, "a release without a reason")
    bench.refused(4, "REASON_REQUIRED", "gate", "release", bench.withheld_job, "--reason", " ")
    reason = "an end-to-end test agrees with itself"
    released = bench.ok_json("gate", "release", bench.withheld_job, "--reason", reason)
    check(released["state"] == "SUCCEEDED" and released["decision"]["reason"] == reason, f"{released}")
    check(bench.ok_json("gate", "report", bench.withheld_job)["decision"]["reason"] == reason, "the reason is not kept")
    check(reason in bench.server_log(), "the decision is not in the server's log")
    identifier = short(bench.withheld_job)
    job = bench.job(identifier)
    check(job["state"] == "SUCCEEDED" and reason not in json.dumps(job), f"{job}")
    folder = bench.folder / "gate-released"
    bench.ok("delta", "download", identifier, "--to", folder)
    bench.ok("delta", "verify", folder, "--job", identifier)
    check(json.loads((folder / "manifest.json").read_text())["gate"] == "released", "the manifest does not say it")
    replies = [
        bench.ok_json("sample", *of, prompts()[0], "--max-tokens", REPLY_TOKENS)["text"]
        for of in (("--base-model", MODEL), ("--delta", identifier))
    ]
    check(replies[0] != replies[1], f"the delta replies as its base does: {replies[0]!r}")
    states = [
        line["event"]["stateChanged"]["state"]
        for line in bench.ok("job", "watch", identifier, "--output", "json").json_lines()
        if "stateChanged" in line.get("event", {})
    ]
    check(states == ["QUEUED", "RUNNING", "WITHHELD", "SUCCEEDED"], f"the job went through {states}")
    check(bench.ok_json("tenant", "show", "dev")["withheldDrawn"] == 0, "a released verdict is held against the tenant")


@STEPS.step("a refused job FAILS and its files go", needs=[STEPS[3].name])
def job_is_refused(bench):
    name, _ = agreeing_job(bench)
    reason = "it does agree"
    refused = bench.ok_json("gate", "refuse", name, "--reason", reason)
    check(refused["state"] == "FAILED" and refused["decision"]["outcome"] == "REFUSED", f"{refused}")
    job = bench.job(short(name))
    check(job["error"]["kind"] == "REFUSED" and job["error"]["reason"] == "GATE_REFUSED", f"{job['error']}")
    check(reason not in json.dumps(job), "the tenant sees the operator's reason")
    blobs = bench.stores.blobs
    wait_for("the files of the refused job to go", lambda: not list(blobs.glob(f"**/{short(name)}/attempts/*/delta/*")))
    bench.refused(4, "JOB_NOT_WITHHELD", "gate", "release", name, "--reason", "too late")


@STEPS.step("too many withheld verdicts freeze the tenant, and only it, until it is unfrozen", needs=[STEPS[4].name])
def tenant_is_frozen(bench):
    last, _ = agreeing_job(bench)
    standing = bench.ok_json("tenant", "show", "dev")
    check(standing["state"] == "FROZEN" and standing["withheldDrawn"] == steps_main.WITHHELD_BUDGET, f"{standing}")
    arguments = ["--base-model", MODEL, "--training", short(bench.training["name"])]
    for command in ("create", "estimate"):
        error = bench.refused(4, "TENANT_FROZEN", "job", command, *arguments)
        check("operator" in error["message"], error["message"])
    other = bench.ok_json("tenant", "show", "other")
    check(other["state"] == "ACTIVE" and other["withheldTotal"] == "0", f"{other}")
    bench.ok_json("gate", "refuse", last, "--reason", "it does agree")
    bench.refused(4, "TENANT_FROZEN", "job", "create", *arguments)
    unfrozen = bench.ok_json("tenant", "unfreeze", "dev", "--reason", "it was a test")
    check(unfrozen["state"] == "ACTIVE" and unfrozen["unfreezes"][-1]["reason"] == "it was a test", f"{unfrozen}")
    bench.refused(4, "TENANT_NOT_FROZEN", "tenant", "unfreeze", "dev", "--reason", "again")
    bench.ok_json("job", "estimate", *arguments)


@STEPS.step("a removed gate asks nothing more", needs=[STEPS[0].name])
def gate_is_removed(bench):
    bench.ok("gate", "remove", MODEL)
    bench.refused(3, "GATE_NOT_FOUND", "gate", "show", MODEL)
    bench.refused(3, "GATE_NOT_FOUND", "gate", "remove", MODEL)
    blobs = bench.stores.blobs
    wait_for("the prompts of the gate to go", lambda: not [path for path in blobs.glob("**/gates/**/*") if path.is_file()])
    name = create(bench, short(bench.training["name"]), *STILL)
    bench.wait_for_state(short(name), ("SUCCEEDED",), 120)
    bench.refused(3, "GATE_REPORT_NOT_FOUND", "gate", "report", name)
