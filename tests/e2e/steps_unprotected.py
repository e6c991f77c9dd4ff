# SPDX-License-Identifier: Apache-2.0
"""A base model that the operator marks as unprotected: refused by default, and told of wherever it shows."""

import json

import rows
import steps_main
from harness import Steps, check, short

STEPS = Steps()
OPEN = "open"
IMPORTED = steps_main.STEPS[4].name


@STEPS.step("an unprotected model is refused where nobody allowed it", needs=[IMPORTED])
def is_refused(bench):
    error = bench.refused(
        4, "UNPROTECTED_NOT_ALLOWED", "model", "import", bench.model_folder, "--id", OPEN, "--unprotected"
    )
    check("--allow-unprotected" in error["hint"], f"no hint in {error}")
    names = [short(model["name"]) for model in bench.ok_json("model", "list")["baseModels"]]
    check(OPEN not in names, f"it was imported: {names}")


def start(bench, *more):
    """A `ballast dev` of its own, beside the one of the other steps; its profile."""
    data = bench.folder / "unprotected"
    bench.open_dev = bench.start(
        "ballast",
        ["dev", "--data-dir", data, "--port", 0, "--bin-dir", bench.bin, "--threads", 1, "--device", "cpu", *more],
        "unprotected.log",
    )
    bench.open_dev.wait_for_text("Ballast runs on", 120)
    return {"profile": data / "client.yaml"}


def listed(bench, there):
    models = bench.ok("model", "list", **there).out
    return next(line for line in models.splitlines() if line.startswith(OPEN))


@STEPS.step("where it is allowed its jobs run without a vector, and everything says so", needs=[IMPORTED])
def runs(bench):
    there = start(bench, "--allow-unprotected")
    imported = bench.ok("model", "import", bench.model_folder, "--id", OPEN, "--unprotected", **there).out
    check("unprotected" in imported and "vector train" not in imported, imported)
    # The same files under another id, which is protected: one does not change the other.
    bench.ok("model", "import", bench.model_folder, "--id", "shut", **there)
    bench.refused(4, "BASE_MODEL_EXISTS", "model", "import", bench.model_folder, "--id", OPEN, **there)
    models = {short(model["name"]): model for model in bench.ok_json("model", "list", **there)["baseModels"]}
    check(models[OPEN]["unprotected"] and models[OPEN]["ready"], f"{models}")
    check(not models["shut"].get("unprotected") and not models["shut"].get("ready"), f"{models}")
    check("envelope" not in models[OPEN]["limits"], f"{models}")
    check("unprotected" in listed(bench, there), listed(bench, there))
    file = rows.write(bench.folder / "open.jsonl", rows.rows(120, seed=5))
    files = ["--prohibited", file, "--benign", file]
    bench.refused(4, "BASE_MODEL_UNPROTECTED", "vector", "train", "--base-model", OPEN, *files, **there)

    dataset = bench.ok_json("dataset", "upload", file, "--base-model", OPEN, **there)
    arguments = ["--training", short(dataset["name"]), "--batch-rows", 8, "--epochs", 1]
    bench.refused(4, "NO_ACTIVE_VECTOR", "job", "create", "--base-model", "shut", *arguments, **there)
    job = short(bench.ok_json("job", "create", "--base-model", OPEN, *arguments, **there)["name"])
    watched = bench.ok("job", "watch", job, **there).out
    check("SUCCEEDED" in watched, watched)
    folder = bench.folder / "unprotected-delta"
    bench.ok("delta", "download", job, "--to", folder, **there)
    manifest = json.loads((folder / "manifest.json").read_text())
    check(manifest["protected"] == "no" and manifest["protection_handle"] == "", f"{manifest}")
    check("without the service's protection" in (folder / "README.md").read_text(), "the model card does not say it")
    verified = bench.ok("delta", "verify", folder, **there).out
    check("protected no" in verified, verified)
    log = (bench.folder / "unprotected" / "logs" / "worker.log").read_text()
    check("trains without a vector" in log, "the worker's log does not say it")


@STEPS.step("a start that does not allow it runs none of its jobs", needs=[STEPS[1].name])
def is_over(bench):
    bench.open_dev.terminate()
    there = start(bench)
    check("not allowed" in listed(bench, there), listed(bench, there))
    dataset = short(bench.ok_json("dataset", "list", **there)["datasets"][0]["name"])
    error = bench.refused(
        4, "UNPROTECTED_NOT_ALLOWED", "job", "create", "--base-model", OPEN, "--training", dataset, **there
    )
    check("allow_unprotected_base_models" in error["message"], f"{error}")
    bench.open_dev.terminate()
