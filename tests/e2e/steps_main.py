# SPDX-License-Identifier: Apache-2.0
"""The main job under `ballast dev`, as docs/cli.md teaches it."""

import hashlib
import json
import os
import re
import secrets
import signal
import stat

import models
import rows
import suite_result
from harness import ROOT, Bench, Steps, check, short, wait_for

STEPS = Steps()
LAST_STEPS = Steps()  # after which nothing runs under `ballast dev` any more

MODEL = "tiny"
# A short lease, so that lost workers are noticed soon, and checkpoints close together.
LEASE_SECONDS = 3
CHECKPOINT_STEPS = 10
# Withheld deltas that freeze a tenant.
WITHHELD_BUDGET = 2


@STEPS.step("dev starts: keys, configurations and a profile are made, server and worker answer")
def dev_starts(bench: Bench):
    # What an operator adds to the configurations stays: a second tenant, a short lease, frequent checkpoints.
    bench.data.mkdir()
    other = secrets.token_hex(32)
    (bench.folder / "other.key").write_text(other + "\n")
    (bench.data / "server.yaml").write_text(
        f"lease_seconds: {LEASE_SECONDS}\nretry_seconds: 1\nprice_per_million_tokens: {{currency_code: USD, amount: 2.5}}\n"
        "quotas:\n  - {tenant: other, max_dataset_bytes: 1000, max_queued_jobs: 1}\n"
        f"withheld_budget: {WITHHELD_BUDGET}\n"
        "api_keys:\n"
        f"  - digest: sha256:{hashlib.sha256(other.encode()).hexdigest()}\n"
        "    role: TENANT\n    tenant: other\n    label: other\n"
        + bench.stores.configuration(links=True)
    )
    (bench.data / "worker.yaml").write_text(f"checkpoint_steps: {CHECKPOINT_STEPS}\n")
    bench.dev = bench.start_dev()
    for path in [bench.data / "client.yaml", bench.data / "server.yaml", *(bench.data / "keys").iterdir()]:
        mode = stat.S_IMODE(path.stat().st_mode)
        check(mode == 0o600, f"{path} has mode {mode:o}, others can read it")
    keys = {path.name for path in (bench.data / "keys").iterdir()}
    expected = {"tenant.key", "operator.key", "worker.key", "vault.key", "certificate.key", "certificate_public.pem"}
    check(keys == expected, f"unexpected keys {keys}")
    server_yaml = (bench.data / "server.yaml").read_text()
    for path in (bench.data / "keys").iterdir():
        check(path.read_text().strip() not in server_yaml, f"server.yaml holds the key of {path.name}, not its digest")
    check("export BALLAST_PROFILE=" in bench.dev.text(), "dev does not say how to reach it")
    profile = bench.profile().read_text()
    tenant_key = (bench.data / "keys" / "tenant.key").read_text().strip()
    (bench.data / "other.yaml").write_text(
        profile.replace(tenant_key, other).replace("tenant: dev", "tenant: other")
    )
    models_now = bench.ok_json("model", "list")
    check(not models_now.get("baseModels"), "a fresh server has models")

    def workers():
        return [short(worker["name"]) for worker in bench.ok_json("model", "workers").get("workers", [])]

    wait_for("the worker to be listed, and no other", lambda: workers() == ["dev"], 20)


@STEPS.step("a second dev on the same data folder is refused", needs=[STEPS[0].name])
def second_dev(bench):
    error = bench.refused(4, "ALREADY_RUNNING", "dev", "--data-dir", bench.data, "--port", "0", "--bin-dir", bench.bin)
    check(str(bench.dev.pid) in error["message"], f"the message does not name the process: {error['message']}")


@STEPS.step("a port in use is refused by dev, naming the option", needs=[STEPS[0].name])
def port_in_use(bench):
    error = bench.refused(
        4, "PORT_IN_USE", "dev", "--data-dir", bench.folder / "data2", "--port", bench.port, "--bin-dir", bench.bin
    )
    check("--port" in error["message"], error["message"])


@STEPS.step("every command teaches itself: --help with examples; wrong usage ends with 2")
def help_teaches(bench):
    groups = {
        "model": ["import", "list", "workers"],
        "vector": ["train", "list", "retire"],
        "gate": ["set", "show", "remove", "withheld", "report", "release", "refuse"],
        "tenant": ["show", "unfreeze"],
        "safety-rows": ["set", "show", "remove"],
        "dataset": ["check", "upload", "show", "list", "delete"],
        "job": ["create", "estimate", "list", "show", "watch", "cancel"],
        "delta": ["download", "verify"],
    }
    commands = [["dev"], ["sample"]] + [[group, name] for group, names in groups.items() for name in names]
    top = bench.ok("--help").out
    for command in commands:
        text = bench.ok(*command, "--help").out
        check("Examples:" in text and f"ballast {' '.join(command)}" in text, f"no example in {command} --help")
        check(command[0] in top, f"{command[0]} is not in --help")
    for wrong in ([], ["job"], ["job", "show"], ["frobnicate"], ["model", "list", "--output", "xml"], ["sample", "x"]):
        check(bench.run(*wrong).code == 2, f"wrong usage {wrong} does not end with 2")


@STEPS.step("a base model is imported; again gives the same; another under its id is refused", needs=[STEPS[0].name])
def import_model(bench):
    bench.model_folder = models.tiny(bench.folder / "models" / "tiny")
    bench.model = bench.ok_json("model", "import", bench.model_folder, "--id", MODEL)
    check(bench.model["name"] == f"baseModels/{MODEL}", bench.model["name"])
    check(re.fullmatch("sha256:[0-9a-f]{64}", bench.model["digest"]), bench.model["digest"])
    check(not bench.model["ready"], "a model without a vector is ready")
    again = bench.ok_json("model", "import", bench.model_folder, "--id", MODEL)
    check(again["digest"] == bench.model["digest"] and again["createTime"] == bench.model["createTime"], "not the same")
    changed = models.copy(bench.model_folder, bench.folder / "models" / "changed")
    models.edit_json(changed / "config.json", lambda config: config.update(rope_theta=20000.0))
    bench.refused(4, "BASE_MODEL_EXISTS", "model", "import", changed, "--id", MODEL)
    listed = bench.ok("model", "list").out
    check("no vector" in listed and MODEL in listed, f"the table does not say that the vector is missing:\n{listed}")


@STEPS.step("dataset check finds the broken rows on this machine, with lines", needs=[STEPS[4].name])
def dataset_check(bench):
    good = rows.rows(60, seed=1)
    lines, bench.broken = rows.with_broken_rows(good)
    bench.broken_file = rows.write(bench.folder / "broken.jsonl", lines)
    result = bench.ok("dataset", "check", bench.broken_file, "--model-folder", bench.model_folder, "--output", "json")
    bench.offline_report = result.json()
    found = {int(issue["line"]): issue["reason"] for issue in bench.offline_report["issues"]}
    check(found == bench.broken, f"found {found}, expected {bench.broken}")
    text = bench.ok("dataset", "check", bench.broken_file, "--model-folder", bench.model_folder).out
    for line, reason in bench.broken.items():
        check(re.search(rf"^ *{line} .*{reason}", text, re.MULTILINE), f"line {line} ({reason}) is not in:\n{text}")


@STEPS.step("an uploaded data set has the same report", needs=[STEPS[4].name, STEPS[5].name])
def dataset_upload(bench):
    bench.training = bench.ok_json("dataset", "upload", bench.broken_file, "--base-model", MODEL)
    report = bench.training["report"]
    check(bench.training["state"] == "READY", bench.training["state"])
    check(report == bench.offline_report, f"the server says {report}, the command line {bench.offline_report}")
    digest = hashlib.sha256(bench.broken_file.read_bytes()).hexdigest()
    check(bench.training["digest"] == f"sha256:{digest}", "the digest is not the file's")
    validation = rows.write(bench.folder / "validation.jsonl", rows.rows(12, seed=2))
    bench.validation = bench.ok_json("dataset", "upload", validation, "--base-model", MODEL)
    text = bench.ok("dataset", "show", short(bench.training["name"])).out
    check("NO_ASSISTANT_TURN" in text, text)
    names = [short(dataset["name"]) for dataset in bench.ok_json("dataset", "list")["datasets"]]
    check(names == [short(bench.validation["name"]), short(bench.training["name"])], f"not newest first: {names}")


def job_arguments(bench, *more):
    return [
        *("--base-model", MODEL, "--training", short(bench.training["name"])),
        *("--validation", short(bench.validation["name"]), "--batch-rows", 8, "--learning-rate", "5e-3", "--seed", 7),
        *more,
    ]


@STEPS.step("a job on a base without a vector is refused", needs=[STEPS[6].name])
def no_vector(bench):
    for command in ("estimate", "create"):
        error = bench.refused(4, "NO_ACTIVE_VECTOR", "job", command, *job_arguments(bench))
        check("vector train" in error["hint"], f"no hint in {error}")
    check(not bench.ok_json("job", "list").get("fineTuningJobs"), "a refused job was kept")


def certify(bench):
    """The suite's result judged, signed, saved and verified without a server."""
    vector = short(bench.vector["name"])
    file = bench.folder / "suite_result.json"
    file.write_text(json.dumps(suite_result.result(bench.vector, attack_success=100)))
    bench.refused(6, "VECTOR_REJECTED", "vector", "certify", vector, "--result", file, "--dry-run")
    other = {**suite_result.result(bench.vector), "baseModelDigest": "sha256:" + "0" * 64}
    file.write_text(json.dumps(other))
    bench.refused(4, "SUITE_RESULT_MISMATCH", "vector", "certify", vector, "--result", file)
    check(bench.ok_json("vector", "show", vector)["state"] == "CERTIFYING", "a refused result changed the vector")
    file.write_text(json.dumps(suite_result.result(bench.vector)))
    bench.ok("vector", "certify", vector, "--result", file)
    check(bench.ok_json("vector", "show", vector)["certified"], "the vector is not certified")
    check(f"certified vectors/{vector}" in bench.server_log(), "the decision is not in the server's log")
    bench.refused(4, "VECTOR_NOT_CERTIFYING", "vector", "activate", vector, "--reason", "it has a certificate already")
    saved = bench.folder / "certificate.json"
    saved.write_text(bench.ok("vector", "certificate", vector, "--output", "json").out)
    verify = ["vector", "certificate", "--file", saved, "--verify", "--public-key"]
    key = bench.data / "keys" / "certificate_public.pem"
    check("Verified" in bench.ok(*verify, key).out, "not verified")
    changed = json.loads(saved.read_text())
    changed["certificate"]["envelope"]["maxSteps"] = "1000000"
    saved.write_text(json.dumps(changed))
    bench.refused(1, "CERTIFICATE_INVALID", *verify, key)
    # One that an earlier version has signed.
    kept = ROOT / "docs" / "results"
    arguments = ["--file", kept / "certificate.json", "--verify", "--public-key", kept / "certificate_public.pem"]
    check("Verified" in bench.ok("vector", "certificate", *arguments).out, "the certificate of docs/results is not verified")


@STEPS.step("an operator trains a vector, with a report, and certifies it", needs=[STEPS[4].name])
def train_vector(bench):
    bench.prohibited = rows.write(bench.folder / "prohibited.jsonl", rows.prohibited(100))
    bench.benign = rows.write(bench.folder / "benign.jsonl", rows.rows(40, seed=3))
    arguments = ["vector", "train", "--base-model", MODEL, "--prohibited", bench.prohibited, "--benign", bench.benign]
    few = rows.write(bench.folder / "few.jsonl", rows.prohibited(20))
    bench.refused(4, "TOO_FEW_ROWS", *arguments[:5], few, *arguments[6:])
    bench.vector = bench.ok_json(*arguments, "--learning-rate", "5e-3", "--epochs", "4")
    check(bench.vector["state"] == "CERTIFYING", f"the vector is {bench.vector['state']}")
    report = bench.vector["report"]
    check(
        report["prohibitedLossWith"] < 0.6 * report["prohibitedLossWithout"],
        f"the vector does not lower the loss of prohibited rows: {report}",
    )
    check(not bench.ok_json("model", "list")["baseModels"][0]["ready"], "the model is ready without a certificate")
    certify(bench)
    model = bench.ok_json("model", "list")["baseModels"][0]
    check(model["ready"], "the model is not ready")
    check(model["limits"]["envelope"]["maxSteps"] == "2500", f"not the certificate's limits: {model['limits']}")
    check("ACTIVE" in bench.ok("vector", "list").out, "the list does not say ACTIVE")
    error = bench.refused(7, "OPERATOR_ONLY", "vector", "list", "--api-key-file", bench.data / "keys" / "tenant.key")
    check("operator" in error["message"], error["message"])


@STEPS.step("a job is estimated and nothing is kept", needs=[STEPS[8].name, STEPS[6].name])
def estimate(bench):
    estimated = bench.ok_json("job", "estimate", *job_arguments(bench))["estimate"]
    accepted = int(bench.training["report"]["rowsAccepted"])
    check(int(estimated["rows"]) == accepted, f"{estimated} of {accepted} rows")
    check(int(estimated["steps"]) == 3 * -(-accepted // 8), f"{estimated}")
    check(int(estimated["totalTokens"]) == 3 * int(bench.training["report"]["totalTokens"]), f"{estimated}")
    check(not bench.ok_json("job", "list").get("fineTuningJobs"), "an estimate was kept")
    check("THIS JOB" in bench.ok("job", "estimate", *job_arguments(bench)).out, "the limits are not shown")
    for command in ("estimate", "create"):
        error = bench.refused(4, "OUTSIDE_ENVELOPE", "job", command, *job_arguments(bench, "--lora-rank", 8))
        check(error["violations"][0]["field"].endswith("hyperparameters.lora_rank"), f"another field: {error}")


@STEPS.step("a job is created once by its request id", needs=[STEPS[9].name])
def create_job(bench):
    arguments = ["job", "create", *job_arguments(bench, "--name", "first", "--label", "team=e2e")]
    request_id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
    created = bench.ok_json(*arguments, "--request-id", request_id)
    check(created["name"].startswith("tenants/dev/fineTuningJobs/"), created["name"])
    bench.first_job = short(created["name"])
    again = bench.ok_json(*arguments, "--request-id", request_id)
    check(again["name"] == created["name"], "the same request made two jobs")
    bench.refused(4, "REQUEST_ID_REUSED", *arguments, "--epochs", 4, "--request-id", request_id)


@STEPS.step("it is watched to SUCCEEDED: events without gaps, losses that fall", needs=[STEPS[10].name])
def watch_job(bench):
    lines = bench.ok("job", "watch", bench.first_job, "--output", "json").json_lines()
    job = lines[-1]
    check(job["state"] == "SUCCEEDED", f"the job is {job['state']}: {job.get('error')}")
    events = [line["event"] for line in lines if "event" in line]
    check([int(event["sequence"]) for event in events] == list(range(1, len(events) + 1)), "gaps between events")
    states = [event["stateChanged"]["state"] for event in events if "stateChanged" in event]
    check(states == ["QUEUED", "RUNNING", "SUCCEEDED"], f"the job went through {states}")
    losses = [event["evaluation"] for event in events if "evaluation" in event]
    check(len(losses) >= 2, f"only {len(losses)} evaluation points")
    check(losses[-1]["trainingLoss"] < losses[0]["trainingLoss"], f"the loss does not fall: {losses}")
    check(all("validationLoss" in loss for loss in losses), "no validation loss")
    check(job["attempt"] == 1 and job["progress"]["step"] == job["progress"]["totalSteps"], f"{job['progress']}")
    bench.finished_job = job
    text = bench.ok("job", "watch", bench.first_job)
    check("SUCCEEDED" in text.out and "delta download" in text.out, text.out)
    check("\x1b" not in text.out + text.err, "control sequences although nothing is a terminal")
    check("first" in bench.ok("job", "list").out, "the list does not show the job")
    check("VALIDATION" in bench.ok("job", "show", bench.first_job).out, "the page shows no validation losses")
    bench.refused(4, "JOB_ENDED", "job", "cancel", bench.first_job)


@STEPS.step("the delta is downloaded, resumed, verified; a changed one is not accepted", needs=[STEPS[11].name])
def download(bench):
    folder = bench.delta = bench.folder / "delta"
    bench.ok("delta", "download", bench.first_job, "--to", folder)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    check(
        {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "manifest.json"} <= files, f"files: {files}"
    )
    verified = bench.ok_json("delta", "verify", folder, "--job", bench.first_job)
    check(verified["manifestDigest"] == bench.finished_job["manifestDigest"], "another manifest")
    check(verified["baseDigest"] == bench.model["digest"], "the manifest names another base")
    check(verified["certified"], "the manifest does not say that the protection is certified")
    weights = folder / "adapter" / "adapter_model.safetensors"
    good = weights.read_bytes()
    # An interrupted download: the first half is there.
    weights.unlink()
    weights.with_name(weights.name + ".part").write_bytes(good[: len(good) // 2])
    bench.ok("delta", "download", bench.first_job, "--to", folder)
    check(weights.read_bytes() == good, "the resumed file differs")
    check(not list(folder.rglob("*.part")), "a part was left behind")
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    weights.write_bytes(bad)
    bench.refused(1, "ARTIFACT_FILE_CHANGED", "delta", "verify", folder)
    weights.write_bytes(good)
    (folder / "adapter" / "extra.bin").write_bytes(b"x")
    bench.refused(1, "ARTIFACT_FILE_UNEXPECTED", "delta", "verify", folder)
    (folder / "adapter" / "extra.bin").unlink()
    bench.refused(1, "MANIFEST_DIGEST_MISMATCH", "delta", "verify", folder, "--digest", "sha256:" + "0" * 64)
    bench.ok("delta", "verify", folder)


@STEPS.step("the adapter has the customer's tensors by name and nothing else", needs=[STEPS[12].name])
def adapter_tensors(bench):
    config = json.loads((bench.model_folder / "config.json").read_text())
    header, _ = models.read_safetensors(bench.delta / "adapter" / "adapter_model.safetensors")
    expected = {
        f"base_model.model.model.layers.{layer}.{module}.lora_{part}.weight"
        for layer in range(config["num_hidden_layers"])
        for module in [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
        for part in "AB"
    }
    check(set(models.tensors(header)) == expected, f"{set(models.tensors(header)) ^ expected}")


@STEPS.step("the base and the base with the delta answer, and differ", needs=[STEPS[11].name])
def sample(bench):
    question = "1-3: what of rope tar sail mast keel anchor?"
    before = bench.ok_json("sample", "--base-model", MODEL, question, "--max-tokens", 24)
    after = bench.ok_json("sample", "--delta", bench.first_job, question, "--max-tokens", 24)
    check(before["finishReason"] in ("stop", "length") and after["finishReason"] in ("stop", "length"), f"{before} {after}")
    check(before["text"] != after["text"], f"the delta changes nothing: {before}")
    again = bench.ok_json("sample", "--delta", bench.first_job, question, "--max-tokens", 24)
    check(again == after, "the likeliest tokens differ between two calls")
    bench.refused(4, "MAX_TOKENS_OUT_OF_RANGE", "sample", "--base-model", MODEL, "x", "--max-tokens", 100000)
    bench.refused(4, "TEMPERATURE_OUT_OF_RANGE", "sample", "--base-model", MODEL, "x", "--temperature", 9)
    bench.refused(4, "PROMPT_EMPTY", "sample", "--base-model", MODEL, "")
    bench.refused(4, "PROMPT_TOO_LONG", "sample", "--base-model", MODEL, "rope " * 3000)


@STEPS.step("metrics are served and name no tenant", needs=[STEPS[0].name])
def metrics(bench):
    text = bench.metrics()
    check("ballast_" in text, "no metric of ours")
    for secret in ["other", short(bench.training["name"]), bench.first_job]:
        check(secret not in text, f"the metrics page holds {secret}")


@LAST_STEPS.step("dev stops both programs on SIGTERM", needs=[STEPS[0].name])
def dev_stops(bench):
    children = [int(pid) for pid in open(f"/proc/{bench.dev.pid}/task/{bench.dev.pid}/children").read().split()]
    check(len(children) == 2, f"dev has the children {children}")
    code = bench.dev.terminate()
    check(code == 0, f"dev ended with {code}:\n{bench.dev.text()[-2000:]}")
    for child in children:
        check(not os.path.exists(f"/proc/{child}"), f"process {child} is still there")
    bench.refused(5, "SERVER_UNREACHABLE", "job", "list", profile=bench.workers_profile)
    if len(bench.servers) > 1:
        bench.ok("job", "list")  # of the other one


@LAST_STEPS.step("dev starts again with everything that was stored", needs=[LAST_STEPS[0].name])
def dev_again(bench):
    keys = {path.name: path.read_text() for path in (bench.data / "keys").iterdir()}
    bench.dev = bench.start_dev()
    check(keys == {path.name: path.read_text() for path in (bench.data / "keys").iterdir()}, "keys changed")
    check(bench.job(bench.first_job) == bench.finished_job, "the job changed")
    check("ballast model list" in bench.dev.text(), "dev does not know that there are models")


@LAST_STEPS.step("when the worker dies, dev says so and stops the server", needs=[LAST_STEPS[1].name])
def worker_dies(bench):
    children = [int(pid) for pid in open(f"/proc/{bench.dev.pid}/task/{bench.dev.pid}/children").read().split()]
    worker = next(pid for pid in children if b"ballast-worker" in open(f"/proc/{pid}/cmdline", "rb").read())
    os.kill(worker, signal.SIGKILL)
    code = bench.dev.wait(30)
    check(code != 0, "dev ended with 0")
    check("ballast-worker ended" in bench.dev.text() and "signal 9" in bench.dev.text(), bench.dev.text()[-2000:])
    bench.wait_until_free()


@LAST_STEPS.step("when dev itself is killed, both programs stop", needs=[LAST_STEPS[2].name])
def dev_killed(bench):
    bench.dev = bench.start_dev()
    children = [int(pid) for pid in open(f"/proc/{bench.dev.pid}/task/{bench.dev.pid}/children").read().split()]
    bench.dev.kill()
    wait_for("the programs to stop", lambda: not any(os.path.exists(f"/proc/{child}") for child in children))


@LAST_STEPS.step("a lost vault key is refused by dev, not replaced", needs=[LAST_STEPS[0].name])
def lost_vault_key(bench):
    key = bench.data / "keys" / "vault.key"
    text = key.read_text()
    key.unlink()
    try:
        port = bench.servers[0].port
        bench.refused(4, "VAULT_KEY_MISSING", "dev", "--data-dir", bench.data, "--port", port, "--bin-dir", bench.bin)
        check(not key.exists(), "a new vault key was made")
    finally:
        key.write_text(text)
        key.chmod(0o600)
