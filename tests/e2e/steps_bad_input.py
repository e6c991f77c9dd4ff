# SPDX-License-Identifier: Apache-2.0
"""Bad input: each is refused with its reason, and what was stored before is still there."""

import json
import pathlib
import re
import subprocess

import models
import rows
import steps_main
from harness import Steps, check, python, short, wait_for, with_values

STEPS = Steps()
MODEL = steps_main.MODEL
RAW = pathlib.Path(__file__).resolve().parent / "raw_client.py"


def raw(bench, *arguments, key="tenant"):
    """A call that the command line would not make."""
    secret = "-" if key is None else (bench.data / "keys" / f"{key}.key").read_text().strip()
    finished = subprocess.run(
        [python(), "-B", RAW, f"127.0.0.1:{bench.port}", secret, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    check(finished.returncode == 0, f"raw client: {finished.stdout}{finished.stderr}")
    return json.loads(finished.stdout)


def raw_refused(bench, code, reason, *arguments, key="tenant"):
    answer = raw(bench, *arguments, key=key)
    check((answer["code"], answer["reason"]) == (code, reason), f"must be {code} {reason}: {answer}")
    return answer


@STEPS.step("server and worker start by themselves", needs=[steps_main.LAST_STEPS[0].name])
def start(bench):
    bench.server = bench.start_server()
    bench.worker = bench.start_worker()
    health = raw(bench, "health", key=None)
    check(health["message"] == "SERVING", f"{health}")


STARTED = STEPS[0].name


def beside(bench, name, without="", **values):
    """Starts a server beside that of the workers, with other values in its configuration and `without` one of its blocks."""
    own = {"listen_address": "127.0.0.1:0", "metrics_address": '"off"', "address_file": bench.folder / f"{name}.address"}
    config = with_values(bench.data / "server.yaml", bench.folder / f"{name}.yaml", **{**own, **values})
    if without:
        config.write_text(re.sub(rf"^{without}:\n(?:  .*\n)*", "", config.read_text(), flags=re.MULTILINE))
    return bench.start("ballast-server", ["--config", config], f"{name}.log")


def refused_beside(bench, reason, name, **options):
    server = beside(bench, name, **options)
    code = server.wait(60)  # it may wait for another one to go
    check(code == 2 and reason in server.text(), f"exit code {code}:\n{server.text()}")
    bench.ok("model", "list")


@STEPS.step("a second server on the same data is refused", needs=[STARTED])
def second_server(bench):
    refused_beside(bench, "DATA_DIR_IN_USE", "second")


@STEPS.step("a server on a port in use is refused", needs=[STARTED])
def port_in_use(bench):
    address = f"127.0.0.1:{bench.servers[0].port}"
    # With records of its own: it has to get as far as that.
    refused_beside(bench, "PORT_IN_USE", "port", without="postgres", data_dir=bench.folder / "elsewhere", listen_address=address)


@STEPS.step("a server on a database in use is refused where it keeps blobs elsewhere", needs=[STARTED], postgres=True)
def other_blobs(bench):
    refused_beside(bench, "BLOB_STORE_DIFFERS", "other-blobs", without="object_store", data_dir=bench.folder / "other-blobs")


@STEPS.step("a server on stores in use serves at once what is in them, and goes again", needs=[STARTED, steps_main.STEPS[11].name],
            postgres=True, blobs="object store")
def another_server(bench):
    server, address = beside(bench, "another", data_dir=bench.folder / "another"), bench.folder / "another.address"
    wait_for("the server beside the others to serve", address.exists, 10)
    profile = with_values(bench.profile(), bench.folder / "another-client.yaml", server_address=address.read_text().strip())
    check(bench.job(bench.first_job, profile=profile) == bench.finished_job, "it tells something else of the job")
    bench.ok("delta", "download", bench.first_job, "--to", bench.folder / "delta-another", profile=profile)
    check(server.terminate() == 0, f"it did not stop cleanly:\n{server.text()}")
    bench.ok("model", "list")


@STEPS.step("a configuration with an unknown key is refused, naming the line", needs=[STARTED])
def unknown_key(bench):
    for program in ("server", "worker"):
        config = bench.folder / f"unknown-{program}.yaml"
        config.write_text((bench.data / f"{program}.yaml").read_text() + "frobnicate: 1\n")
        started = bench.start(f"ballast-{program}", ["--config", config], f"unknown-{program}.log")
        code = started.wait()
        check(code == 2 and "frobnicate" in started.text(), f"{program}: exit code {code}:\n{started.text()}")


@STEPS.step("a wrong or missing API key is refused", needs=[STARTED])
def wrong_key(bench):
    bench.refused(7, "API_KEY_INVALID", "job", "list", environment={"BALLAST_API_KEY": "0" * 64})
    raw_refused(bench, "UNAUTHENTICATED", "API_KEY_MISSING", "call", "ballast.v1.FineTuningService",
                "ListFineTuningJobs", '{"parent": "tenants/dev"}', key=None)
    raw_refused(bench, "PERMISSION_DENIED", "OPERATOR_ONLY", "call", "ballast.admin.v1.AdminService",
                "ListVectors", "{}")


for title, reasons, spoil in models.SPOILED:

    def refuse_model(bench, title=title, reasons=reasons, spoil=spoil):
        folder = models.copy(bench.model_folder, bench.folder / "models" / title.replace(" ", "-").replace("'", ""))
        spoil(folder)
        bench.refused(4, reasons, "model", "import", folder, "--id", "spoiled")
        names = [model["name"] for model in bench.ok_json("model", "list")["baseModels"]]
        check(names == [f"baseModels/{MODEL}"], f"something of it was kept: {names}")

    STEPS.step(f"import refuses: {title}", needs=[STARTED])(refuse_model)


@STEPS.step("an id that is none is refused", needs=[STARTED])
def bad_model_id(bench):
    bench.refused(4, "BASE_MODEL_ID_INVALID", "model", "import", bench.model_folder, "--id", "No/Such")
    bench.refused(3, "FOLDER_NOT_FOUND", "model", "import", bench.folder / "nowhere", "--id", "x")


@STEPS.step("an unknown base is not found, wherever it is named", needs=[STARTED])
def unknown_base(bench):
    bench.refused(3, "BASE_MODEL_NOT_FOUND", "dataset", "upload", bench.broken_file, "--base-model", "nobody")
    training = short(bench.training["name"])
    bench.refused(3, "BASE_MODEL_NOT_FOUND", "job", "create", "--base-model", "nobody", "--training", training)
    bench.refused(3, "BASE_MODEL_NOT_FOUND", "sample", "--base-model", "nobody", "x")
    bench.refused(3, "BASE_MODEL_NOT_FOUND", "vector", "train", "--base-model", "nobody",
                  "--prohibited", bench.prohibited, "--benign", bench.benign)
    for kind in ("dataset", "job"):
        bench.refused(3, f"{kind.upper()}_NOT_FOUND", kind, "show", f"{'ds' if kind == 'dataset' else kind}-{'0' * 32}")


def empty_dataset(bench):
    answer = raw(bench, "call", "ballast.v1.DatasetService", "CreateDataset",
                 json.dumps({"parent": "tenants/dev", "dataset": {"baseModel": f"baseModels/{MODEL}"}}))
    check(answer["code"] == "OK", f"{answer}")
    return answer["response"]["name"]


@STEPS.step("an upload at a wrong offset is refused and says where to go on", needs=[STARTED])
def wrong_offset(bench):
    name = empty_dataset(bench)
    # Not the end of the file: the stream breaks off, and what it carried is kept.
    raw(bench, "write-dataset", name, 0, "first")
    answer = raw_refused(bench, "OUT_OF_RANGE", "WRITE_OFFSET_MISMATCH", "write-dataset", name, 100, "x")
    check(answer["metadata"].get("committed_bytes") == "5", f"{answer}")
    raw_refused(bench, "OUT_OF_RANGE", "WRITE_OFFSET_MISMATCH", "write-dataset", name, 0, "again")
    bench.ok("dataset", "delete", short(name))


@STEPS.step("an upload with a wrong digest is refused, keeps nothing, and can be repeated", needs=[STARTED])
def wrong_digest(bench):
    name = empty_dataset(bench)
    raw_refused(bench, "DATA_LOSS", "DIGEST_MISMATCH", "write-dataset", name, 0, "x\n", "--finish", "sha256:" + "0" * 64)
    good = bench.ok_json("dataset", "upload", bench.broken_file, "--resume", short(name))
    check(good["digest"] == bench.training["digest"], "the right bytes were not taken")
    raw_refused(bench, "FAILED_PRECONDITION", "UPLOAD_FINISHED", "write-dataset", name, 0, "x")
    bench.ok("dataset", "delete", short(name))
    bench.refused(3, "DATASET_NOT_FOUND", "dataset", "show", short(name))


@STEPS.step("a digest that is none is refused", needs=[STARTED])
def bad_digest(bench):
    name = empty_dataset(bench)
    raw_refused(bench, "INVALID_ARGUMENT", "DIGEST_INVALID", "write-dataset", name, 0, "x\n", "--finish", "md5:1")
    bench.ok("dataset", "delete", short(name))


@STEPS.step("a piece that is too large is refused", needs=[STARTED])
def large_piece(bench):
    name = empty_dataset(bench)
    answer = raw(bench, "write-dataset", name, 0, "x*1050000")
    check(answer["reason"] == "CHUNK_TOO_LARGE", f"{answer}")
    bench.ok("dataset", "delete", short(name))


@STEPS.step("a data set without an assistant turn is INVALID, line by line", needs=[STARTED])
def no_assistant_turn(bench):
    lines = [json.dumps({"messages": [{"role": "user", "content": f"question {number}"}]}) for number in range(12)]
    file = rows.write(bench.folder / "questions.jsonl", lines)
    result = bench.run("dataset", "upload", file, "--base-model", MODEL, "--output", "json")
    check(result.code == 4 and result.error()["reason"] == "NO_ROWS_ACCEPTED", result.describe())
    dataset = result.json()
    check(dataset["state"] == "INVALID", dataset["state"])
    issues = dataset["report"]["issues"]
    check([(int(issue["line"]), issue["reason"]) for issue in issues] == [(n, "NO_ASSISTANT_TURN") for n in range(1, 13)],
          f"{issues}")
    bench.refused(4, ("DATASET_INVALID", "DATASET_NOT_READY"), "job", "create", "--base-model", MODEL,
                  "--training", short(dataset["name"]))
    bench.refused(4, "NO_ROWS_ACCEPTED", "dataset", "check", file, "--model-folder", bench.model_folder)


@STEPS.step("rows longer than the context are rejected with their lines", needs=[STARTED])
def too_long(bench):
    long_row = rows.rows(1, seed=5, length=20000)
    lines = rows.rows(12, seed=4)
    lines.insert(3, long_row[0])
    file = rows.write(bench.folder / "long.jsonl", lines)
    report = bench.ok_json("dataset", "upload", file, "--base-model", MODEL)["report"]
    check(int(report["rowsAccepted"]) == 12, f"{report}")
    check([(int(issue["line"]), issue["reason"]) for issue in report["issues"]] == [(4, "TOO_LONG")], f"{report['issues']}")


@STEPS.step("odd files: empty, binary, BOM and CRLF", needs=[STARTED])
def odd_files(bench):
    empty = rows.write(bench.folder / "empty.jsonl", [])
    result = bench.run("dataset", "upload", empty, "--base-model", MODEL, "--output", "json")
    check(result.code == 4, result.describe())
    binary = bench.folder / "binary.jsonl"
    binary.write_bytes(bytes(range(256)) * 40)
    result = bench.run("dataset", "upload", binary, "--base-model", MODEL, "--output", "json")
    check(result.code == 4 and result.json()["state"] == "INVALID", result.describe()[:2000])
    windows = bench.folder / "windows.jsonl"
    windows.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows.rows(12, seed=6)).encode() + b"\r\n")
    report = bench.ok_json("dataset", "upload", windows, "--base-model", MODEL)["report"]
    check(int(report["rowsAccepted"]) == 12 and int(report["rowsRejected"]) == 0, f"{report}")
    check({"BOM", "CRLF"} <= set(report["countsByReason"]), f"{report['countsByReason']}")


def refuse_job(title, reason, *arguments, field=None):
    def step(bench):
        base = {"--base-model": MODEL, "--training": short(bench.training["name"]), "--batch-rows": "8"}
        base.update(zip(arguments[::2], arguments[1::2]))
        flat = [part for pair in base.items() for part in pair]
        error = bench.refused(4, reason, "job", "create", *flat)
        if field:
            fields = [violation["field"] for violation in error.get("violations", [])]
            check(any(field in name for name in fields), f"{field} is not among the violations: {error}")
        bench.refused(4, reason, "job", "estimate", *flat)

    STEPS.step(f"a job is refused: {title}", needs=[STARTED])(step)


refuse_job("learning rate 0", "LEARNING_RATE_OUT_OF_RANGE", "--learning-rate", "0", field="learning_rate")
refuse_job("learning rate 1e9", "LEARNING_RATE_OUT_OF_RANGE", "--learning-rate", "1e9", field="learning_rate")
refuse_job("learning rate nan", "LEARNING_RATE_OUT_OF_RANGE", "--learning-rate", "nan", field="learning_rate")
refuse_job("negative learning rate", "LEARNING_RATE_OUT_OF_RANGE", "--learning-rate", "-1", field="learning_rate")
refuse_job("too many epochs", "EPOCHS_OUT_OF_RANGE", "--epochs", "1000000", field="epochs")
refuse_job("one-row steps (S5)", "BATCH_ROWS_OUT_OF_RANGE", "--batch-rows", "1", field="batch_rows")
refuse_job("one step (S5)", "TOO_FEW_STEPS", "--epochs", "1", "--batch-rows", "64")
refuse_job("LoRA rank too large", "LORA_RANK_OUT_OF_RANGE", "--lora-rank", "100000", field="lora_rank")


@STEPS.step("a job on too few rows is refused (S5)", needs=[STARTED])
def too_few_rows(bench):
    file = rows.write(bench.folder / "three.jsonl", rows.rows(3, seed=8))
    dataset = bench.ok_json("dataset", "upload", file, "--base-model", MODEL)
    bench.refused(4, "TOO_FEW_ROWS", "job", "create", "--base-model", MODEL, "--training", short(dataset["name"]),
                  "--epochs", 20)
    bench.ok("dataset", "delete", short(dataset["name"]))


@STEPS.step("another tenant's things do not exist (T1)", needs=[STARTED, steps_main.STEPS[11].name])
def other_tenant(bench):
    other = bench.data / "other.yaml"
    nothing = f"job-{'0' * 32}"

    def same(arguments, theirs, none):
        """The answer to what is another's and to what is not there differ in nothing but the id."""
        first = bench.run(*[theirs if part == "X" else part for part in arguments], "--output", "json", profile=other)
        second = bench.run(*[none if part == "X" else part for part in arguments], "--output", "json", profile=other)
        check(first.code == 3 and first.error()["reason"].endswith("_NOT_FOUND"), first.describe())
        check(
            first.err.replace(short_of(theirs), "ID") == second.err.replace(short_of(none), "ID"),
            f"the answers differ:\n{first.err}{second.err}",
        )

    def short_of(name):
        return name.removesuffix("/delta").rsplit("/", 1)[-1]

    dataset = short(bench.training["name"])
    for full in (True, False):
        prefix = "tenants/dev/" if full else "tenants/other/"
        job = f"{prefix}fineTuningJobs/{bench.first_job}"
        same(["job", "show", "X"], job, f"{prefix}fineTuningJobs/{nothing}")
        same(["job", "watch", "X"], job, f"{prefix}fineTuningJobs/{nothing}")
        same(["job", "cancel", "X"], job, f"{prefix}fineTuningJobs/{nothing}")
        same(["delta", "download", "X", "--to", str(bench.folder / "stolen")], job, f"{prefix}fineTuningJobs/{nothing}")
        same(["sample", "--delta", "X", "hello"], job, f"{prefix}fineTuningJobs/{nothing}")
        same(["dataset", "show", "X"], f"{prefix}datasets/{dataset}", f"{prefix}datasets/ds-{'0' * 32}")
        same(["dataset", "delete", "X"], f"{prefix}datasets/{dataset}", f"{prefix}datasets/ds-{'0' * 32}")
        same(["job", "create", "--base-model", MODEL, "--training", "X"], f"{prefix}datasets/{dataset}",
             f"{prefix}datasets/ds-{'0' * 32}")
    check(not (bench.folder / "stolen").exists(), "something was written")
    check(not bench.ok_json("job", "list", profile=other).get("fineTuningJobs"), "the other tenant sees jobs")
    check(not bench.ok_json("dataset", "list", profile=other).get("datasets"), "the other tenant sees data sets")
    bench.ok("dataset", "show", dataset)


@STEPS.step("after all that, everything that was stored is there", needs=[STARTED])
def nothing_lost(bench):
    check(bench.job(bench.first_job) == bench.finished_job, "the job changed")
    bench.ok("delta", "download", bench.first_job, "--to", bench.folder / "delta-again")
    bench.ok("delta", "verify", bench.folder / "delta-again", "--job", bench.first_job)
    check(bench.server.running() and bench.worker.running(), "a program ended")
