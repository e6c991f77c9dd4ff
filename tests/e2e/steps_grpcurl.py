# SPDX-License-Identifier: Apache-2.0
"""A client that knows nothing but reflection: grpcurl, with the words of the README."""

import json
import os
import pathlib
import re
import subprocess

import steps_main
from harness import ROOT, Skip, Steps, check, find_grpcurl, short

STEPS = Steps()


def grpcurl_program():
    program = find_grpcurl()
    if program is None:
        raise Skip("grpcurl is not installed")
    return program


def grpcurl(bench, *arguments, key="tenant", data=None, expect=0):
    command = [grpcurl_program(), "-plaintext"]
    if key:
        command += ["-H", f"authorization: Bearer {(bench.data / 'keys' / f'{key}.key').read_text().strip()}"]
    if data is not None:
        command += ["-d", json.dumps(data)]
    finished = subprocess.run(
        [*command, f"127.0.0.1:{bench.port}", *arguments], capture_output=True, text=True, timeout=60
    )
    check(finished.returncode == expect, f"grpcurl {arguments}: {finished.returncode}\n{finished.stdout}{finished.stderr}")
    return finished.stdout if expect == 0 else finished.stderr


# What C++ servers say by reflection has no JSON names, so grpcurl prints the names of the proto files.


def many(text):
    """The JSON values of a stream, one after the other."""
    decoder, values = json.JSONDecoder(), []
    text = text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:].lstrip()
    return values


@STEPS.step("grpcurl lists and describes the services by reflection", needs=[steps_main.STEPS[0].name])
def list_services(bench):
    services = grpcurl(bench, "list", key=None).split()
    for name in ("BaseModelService", "DatasetService", "FineTuningService", "DeltaService", "SamplingService"):
        check(f"ballast.v1.{name}" in services, f"{name} is not listed: {services}")
    check("ballast.admin.v1.AdminService" in services and "grpc.health.v1.Health" in services, f"{services}")
    described = grpcurl(bench, "describe", "ballast.v1.FineTuningService", key=None)
    check("WatchFineTuningJob" in described, described)


@STEPS.step("grpcurl creates a job and watches it to SUCCEEDED", needs=[steps_main.STEPS[9].name, STEPS[0].name])
def create_and_watch(bench):
    request = {
        "parent": "tenants/dev",
        "fineTuningJob": {
            "displayName": "by grpcurl",
            "baseModel": f"baseModels/{steps_main.MODEL}",
            "trainingDataset": bench.training["name"],
            "hyperparameters": {"batchRows": 8, "epochs": 2},
        },
    }
    job = json.loads(grpcurl(bench, "ballast.v1.FineTuningService/CreateFineTuningJob", data=request))
    check(job["state"] == "QUEUED", f"{job}")
    updates = many(grpcurl(bench, "ballast.v1.FineTuningService/WatchFineTuningJob", data={"name": job["name"]}))
    states = [update["event"]["state_changed"]["state"] for update in updates if "state_changed" in update.get("event", {})]
    check(states == ["QUEUED", "RUNNING", "SUCCEEDED"], f"{states}")
    cursor = updates[-1]["event"]["sequence"]
    rest = many(
        grpcurl(
            bench,
            "ballast.v1.FineTuningService/WatchFineTuningJob",
            data={"name": job["name"], "afterSequence": int(cursor) - 1},
        )
    )
    check([update["event"]["sequence"] for update in rest if "event" in update] == [cursor], "the cursor repeats or loses")
    listed = json.loads(
        grpcurl(bench, "ballast.v1.FineTuningService/ListFineTuningJobs", data={"parent": "tenants/dev", "pageSize": 1})
    )
    check([short(found["name"]) for found in listed["fine_tuning_jobs"]] == [short(job["name"])], f"not the newest: {listed}")


@STEPS.step("grpcurl lists, creates and watches a job with the words of the README", needs=[STEPS[1].name])
def readme(bench):
    text = (ROOT / "README.md").read_text()
    block = next(part for part in text.split("```") if "grpcurl -plaintext" in part)
    block = block.replace("~/.local/share/ballast", str(bench.data)).replace("127.0.0.1:7070", f"127.0.0.1:{bench.port}")
    block = block.replace("baseModels/smollm2", f"baseModels/{steps_main.MODEL}")
    block = block.replace("DATASET", short(bench.training["name"]))
    # The watch needs the id that the command before it prints.
    first, watch = block.split("grpcurl", 4)[:4], "grpcurl" + block.split("grpcurl", 4)[4]
    environment = {"PATH": f"{pathlib.Path(grpcurl_program()).parent}:{os.environ['PATH']}"}

    def bash(script):
        finished = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, timeout=90, env=environment)
        check(finished.returncode == 0, f"{script}\n{finished.stdout}{finished.stderr}")
        return finished.stdout

    printed = bash("grpcurl".join(first))
    check("ballast.v1.FineTuningService" in printed, printed)
    job = re.findall(r"tenants/dev/fineTuningJobs/(job-[0-9a-f]+)", printed)[-1]
    key = block.strip().splitlines()[0]
    watched = bash(f"{key}\n{watch.replace('JOB', job)}")
    check("SUCCEEDED" in watched, watched)


@STEPS.step("grpcurl without a key is refused", needs=[STEPS[0].name])
def no_key(bench):
    answer = grpcurl(bench, "ballast.v1.BaseModelService/ListBaseModels", key=None, expect=64 + 16)
    check("API_KEY_MISSING" in answer, answer)
