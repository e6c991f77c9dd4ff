# SPDX-License-Identifier: Apache-2.0
"""Programs that die, disks that fill up, keys that are wrong: what was acknowledged survives (R3), and a job that
SUCCEEDED has one delta (R2)."""

import hashlib
import json
import resource
import shutil
import signal
import time

import rows
import steps_bad_input
import steps_main
from harness import Steps, check, object_store, short, wait_for, with_values

STEPS = Steps()
LAST_STEPS = Steps()  # after which no job is created any more
MODEL = steps_main.MODEL
STARTED = steps_bad_input.STARTED
TRAINED = steps_main.STEPS[11].name

# Long enough to be hit in the middle, short enough to wait for.
LONG_ROWS = 400
LONG_EPOCHS = 2


@STEPS.step("a long job's data set", needs=[STARTED, TRAINED])
def long_dataset(bench):
    file = rows.write(bench.folder / "long-job.jsonl", rows.rows(LONG_ROWS, seed=9))
    bench.long_training = short(bench.ok_json("dataset", "upload", file, "--base-model", MODEL)["name"])


LONG = STEPS[0].name


def long_job(bench, *more, epochs=LONG_EPOCHS):
    created = bench.ok_json("job", "create", "--base-model", MODEL, "--training", bench.long_training,
                            "--epochs", epochs, "--batch-rows", 4, "--seed", 5, *more)
    return short(created["name"])


def check_one_delta(bench, job, attempts):
    """R2: SUCCEEDED once, and its delta is whole."""
    found = bench.wait_for_state(job, ("SUCCEEDED", "FAILED", "CANCELLED"), 90)
    check(found["state"] == "SUCCEEDED", f"the job is {found['state']}: {found.get('error')}")
    check(found["attempt"] in attempts, f"attempt {found['attempt']}, not one of {attempts}")
    lines = bench.ok("job", "watch", job, "--output", "json").json_lines()
    events = [line["event"] for line in lines if "event" in line]
    check([int(event["sequence"]) for event in events] == list(range(1, len(events) + 1)), "gaps between events")
    states = [event["stateChanged"]["state"] for event in events if "stateChanged" in event]
    check(states.count("SUCCEEDED") == 1 and states[-1] == "SUCCEEDED", f"{states}")
    folder = bench.folder / "deltas" / job
    bench.ok("delta", "download", job, "--to", folder)
    bench.ok("delta", "verify", folder, "--job", job)
    return found, states


def check_watch(watch):
    """That it has ended well and has brought every event once, in order."""
    check(watch.wait(60) == 0, watch.text()[-2000:])
    updates = [json.loads(line) for line in watch.text().splitlines() if line.startswith("{")]
    sequences = [int(update["event"]["sequence"]) for update in updates if "event" in update]
    check(sequences == list(range(1, len(sequences) + 1)), f"the watch lost or repeated events: {sequences}")


@STEPS.step("a job is cancelled in the middle, the watch ends with 6, the worker takes the next", needs=[LONG])
def cancel(bench):
    job = long_job(bench)
    watch = bench.start_command("job", "watch", job, log="watch-cancelled.txt")
    bench.wait_for_step(job, 10)
    bench.refused(4, "DATASET_IN_USE", "dataset", "delete", bench.long_training)
    started = time.monotonic()
    state = bench.ok_json("job", "cancel", job)["state"]
    check(state in ("CANCELLING", "CANCELLED"), state)
    bench.wait_for_state(job, ("CANCELLED",), 20)
    check(time.monotonic() - started < 10, "the cancel took 10 s or more")
    check(watch.wait(20) == 6 and "JOB_CANCELLED" in watch.text(), watch.text())
    bench.ok("job", "cancel", job)  # again is harmless
    bench.refused(3, "DELTA_NOT_FOUND", "delta", "download", job, "--to", bench.folder / "none")
    queued = bench.ok_json("job", "create", *steps_main.job_arguments(bench))
    check_one_delta(bench, short(queued["name"]), {1})


@STEPS.step("a queued job is cancelled at once", needs=[LONG])
def cancel_queued(bench):
    first, second = long_job(bench), long_job(bench)
    bench.wait_for_step(first, 1)
    check(bench.job(second)["state"] == "QUEUED", "two jobs run at a time")
    check(bench.ok_json("job", "cancel", second)["state"] == "CANCELLED", "not at once")
    bench.ok("job", "cancel", first)
    bench.wait_for_state(first, ("CANCELLED",), 20)


@STEPS.step("a job that waits says why and what goes first: by priority, and else in order", needs=[LONG])
def jobs_wait(bench):
    error = bench.refused(4, "PRIORITY_OUT_OF_RANGE", "job", "create", *steps_main.job_arguments(bench), "--priority", "11")
    check("between -10 and 10" in json.dumps(error), f"{error}")
    running = long_job(bench)
    bench.wait_for_step(running, 1)
    arguments = steps_main.job_arguments(bench)
    usual, urgent = (
        short(bench.ok_json("job", "create", *arguments, "--priority", priority)["name"]) for priority in ("0", "7")
    )
    check(bench.job(urgent).get("queuePosition", 0) == 0, f"{bench.job(urgent)}")
    waits = bench.job(usual)
    check(waits["queuePosition"] == 1 and waits["waiting"]["reason"] == "WORKERS_BUSY", f"{waits}")
    shown = bench.ok("job", "show", usual).out
    check("1 of yours before it" in shown and "the workers are busy" in shown, shown)
    for job in (running, usual):
        bench.ok("job", "cancel", job)
    bench.wait_for_state(urgent, ("SUCCEEDED",), 60)
    check("waiting" not in bench.job(urgent), f"{bench.job(urgent)}")


@STEPS.step("kill -9 of the worker in the middle: a second attempt goes on and there is one delta", needs=[LONG])
def kill_worker(bench):
    job = long_job(bench)
    before = bench.wait_for_step(job, 3 * steps_main.CHECKPOINT_STEPS)
    bench.worker.kill()
    bench.worker = bench.start_worker()
    found, states = check_one_delta(bench, job, {2})
    check(states.count("RUNNING") == 2, f"{states}")
    steps = [int(e["step"]) for e in found["progress"]["evaluations"]]
    check(steps == sorted(set(steps)), f"evaluations repeat or go back: {steps}")
    check(before["attempt"] == 1, f"{before}")


@STEPS.step("SIGTERM drains the worker: it ends with 0 and the next one finishes the job", needs=[LONG])
def drain_worker(bench):
    job = long_job(bench)
    bench.wait_for_step(job, 10)
    code = bench.worker.terminate(30)
    check(code == 0, f"the worker ended with {code}:\n{bench.worker.text()[-2000:]}")
    found = bench.job(job)
    check(found["state"] in ("QUEUED", "RUNNING"), f"{found['state']}: {found.get('error')}")
    bench.worker = bench.start_worker()
    check_one_delta(bench, job, {1, 2})


def start_large_upload(bench, log):
    """A data set that takes its time to upload, once that is under way: the command and the file."""
    # Lines above the limit are rejected without being tokenised, so that bytes, not rows, take the time.
    file = bench.folder / "large.jsonl"
    with open(file, "w") as out:
        for line in rows.rows(12, seed=10):
            out.write(line + "\n")
        filler = "x" * (3 << 20)
        for number in range(60):
            out.write(f'{{"number": {number}, "filler": "{filler}"}}\n')
    # Through the server, which is to be killed meanwhile.
    arguments = ["--base-model", MODEL, "--no-links", "--output", "json"]
    upload = bench.start_command("dataset", "upload", file, *arguments, log=log)

    def stored():
        return sum(path.stat().st_size for folder in bench.stores.all_bytes for path in folder.rglob("*") if path.is_file())

    start = stored()
    wait_for("the upload to get going", lambda: stored() > start + (8 << 20), 20, 0.005)
    return upload, file


def check_large_upload(bench, dataset, file):
    check(dataset["state"] == "READY" and int(dataset["sizeBytes"]) == file.stat().st_size, f"{dataset['state']}")
    report = dataset["report"]
    check(int(report["rowsAccepted"]) == 12 and int(report["rowsRejected"]) == 60, f"{report['countsByReason']}")
    bench.ok("dataset", "delete", short(dataset["name"]))
    file.unlink()


@STEPS.step("kill -9 of the server in the middle of an upload: the same command goes on", needs=[LONG])
def kill_server_mid_upload(bench):
    upload, file = start_large_upload(bench, "upload-killed.txt")
    bench.server.kill()
    check(upload.running(), f"the upload was over before the server was killed; make the file larger:\n{upload.text()}")
    bench.server = bench.start_server()
    code = upload.wait(90)
    check(code == 0, f"the upload ended with {code}:\n{upload.text()[-2000:]}")
    text = upload.text()
    check(bench.job(bench.first_job) == bench.finished_job, "the job changed")
    check_large_upload(bench, json.loads(text[text.index("\n{") + 1 if not text.startswith("{") else 0 :]), file)


@STEPS.step("kill -9 of the server in the middle of a job: the watch goes on, the job finishes", needs=[LONG])
def kill_server_mid_job(bench):
    job = long_job(bench)
    watch = bench.start_command("job", "watch", job, "--output", "json", log="watch-killed.txt")
    bench.wait_for_step(job, 10)
    bench.server.kill()
    time.sleep(0.3)
    bench.server = bench.start_server()
    check_one_delta(bench, job, {1, 2})
    check_watch(watch)


@STEPS.step("kill -9 of everything, then a restart: the job is still there and finishes", needs=[LONG])
def kill_all(bench):
    job, waiting = long_job(bench), long_job(bench, "--name", "waiting")
    bench.wait_for_step(job, 10)
    bench.server.kill()
    bench.worker.kill()
    bench.server = bench.start_server()
    check(bench.job(waiting)["state"] == "QUEUED", f"{bench.job(waiting)['state']}")
    check(bench.job(job)["state"] in ("QUEUED", "RUNNING"), f"{bench.job(job)['state']}")
    bench.worker = bench.start_worker()
    check_one_delta(bench, job, {1, 2})
    check_one_delta(bench, waiting, {1})
    check(bench.job(bench.first_job) == bench.finished_job, "another job changed")


@STEPS.step("a paused job frees its worker, outlives the server, and goes on when it is resumed", needs=[LONG])
def pause(bench):
    # Long enough to be running still when it is paused a second time.
    job = long_job(bench, epochs=4 * LONG_EPOCHS)
    watch = bench.start_command("job", "watch", job, log="watch-paused.txt")
    bench.wait_for_step(job, 10)
    state = bench.ok_json("job", "pause", job)["state"]
    check(state in ("PAUSING", "PAUSED"), state)
    bench.wait_for_state(job, ("PAUSED",), 20)
    check(watch.wait(20) == 6 and "JOB_PAUSED" in watch.text(), watch.text())
    bench.ok("job", "pause", job)  # again is harmless
    bench.refused(4, "DATASET_IN_USE", "dataset", "delete", bench.long_training)
    other = bench.ok_json("job", "create", *steps_main.job_arguments(bench))
    check_one_delta(bench, short(other["name"]), {1})
    bench.server.kill()
    bench.server = bench.start_server()
    check(bench.job(job)["state"] == "PAUSED", f"{bench.job(job)['state']}")
    check(bench.ok_json("job", "resume", job)["state"] in ("QUEUED", "RUNNING"), "not resumed")
    # The step that is shown may be of before: one that still waits would be paused at once.
    wait_for("it to run again", lambda: bench.job(job)["state"] == "RUNNING", 30)
    # Asked for at once, it waits for the worker's checkpoint.
    bench.ok("job", "pause", job)
    bench.ok("job", "resume", job)
    _, states = check_one_delta(bench, job, {3})
    check(states.count("PAUSED") == 2, f"{states}")
    bench.refused(4, "JOB_ENDED", "job", "pause", job)
    bench.refused(4, "JOB_ENDED", "job", "resume", job)
    twin = long_job(bench, epochs=4 * LONG_EPOCHS)
    check_one_delta(bench, twin, {1})
    adapters = {next((bench.folder / "deltas" / name).rglob("adapter_model.safetensors")).read_bytes() for name in (job, twin)}
    check(len(adapters) == 1, "the job that was paused twice has another adapter than the one that ran through")
    for name in (job, twin):
        shutil.rmtree(bench.folder / "deltas" / name)


@STEPS.step("a deleted job is gone with its bytes, and its usage stays", needs=[LONG])
def delete_job(bench):
    active = long_job(bench)
    bench.refused(4, "JOB_ACTIVE", "job", "delete", active)
    bench.ok("job", "cancel", active)
    bench.wait_for_state(active, ("CANCELLED",), 20)
    bench.ok("job", "delete", active)
    job = short(bench.ok_json("job", "create", *steps_main.job_arguments(bench))["name"])
    check_one_delta(bench, job, {1})
    found = bench.job(job)
    used = found["usage"]
    check(int(used["trainedTokens"]) == int(found["estimate"]["totalTokens"]), f"{used}, {found['estimate']}")
    check(used["cost"] == found["estimate"]["cost"] and int(used["cost"]["nanos"]) > 0, f"{used}")
    blobs = bench.stores.blobs / "jobs" / "dev" / job
    check(any(blobs.rglob("adapter_model.safetensors")), f"no delta below {blobs}")
    before = bench.ok_json("usage")["months"]
    check(bench.ok_json("job", "delete", job)["deleted"].endswith(job), "not deleted")
    bench.refused(3, "JOB_NOT_FOUND", "job", "show", job)
    bench.refused(3, "DELTA_NOT_FOUND", "delta", "download", job, "--to", bench.folder / "deleted")
    wait_for("its bytes to be deleted", lambda: not any(path.is_file() for path in blobs.rglob("*")), 20)
    months = bench.ok_json("usage")["months"]
    check(months == before and int(months[0]["jobs"]) > 1, f"{months}, before {before}")
    check(months == bench.ok_json("usage", "--of", "dev")["months"], "the operator sees something else")
    check("USD" in bench.ok("usage").out, "no cost in the table")
    shutil.rmtree(bench.folder / "deltas" / job)


@STEPS.step("a tenant at its quota is told so, and the other one is not", needs=[LONG])
def quota(bench):
    environment = {"BALLAST_API_KEY": (bench.folder / "other.key").read_text().strip(), "BALLAST_TENANT": "other"}
    file = rows.write(bench.folder / "quota.jsonl", rows.rows(40, seed=12))
    refused = bench.run("dataset", "upload", file, "--base-model", MODEL, "--output", "json", environment=environment)
    check(refused.code == 5 and refused.error()["reason"] == "QUOTA_DATASET_BYTES", refused.describe())
    check("1000" in refused.error()["message"], refused.describe())
    dataset = short(bench.ok_json("dataset", "upload", file, "--base-model", MODEL)["name"])
    bench.ok("dataset", "delete", dataset)


@STEPS.step("operators see what protected a job, and how many of its rows", needs=[LONG])
def protection(bench):
    name = bench.finished_job["name"]
    found = bench.ok_json("vector", "job", name)
    check(found["vector"] == bench.vector["name"], f"{found}")
    use = found["vectorUse"]
    check(int(use["rows"]) == int(bench.training["report"]["rowsAccepted"]), f"{use}")
    check(0 <= int(use.get("rowsUnderVector", 0)) <= int(use["rows"]), f"{use}")
    check("rows under it" in bench.ok("vector", "job", name).out, "no page")
    bench.refused(3, "JOB_NOT_FOUND", "vector", "job", "tenants/dev/fineTuningJobs/job-none")


@STEPS.step("without the object store calls wait and nothing is lost; with it all goes on", needs=[LONG],
            blobs="object store")
def no_object_store(bench):
    job = long_job(bench)
    bench.wait_for_step(job, 5)
    object_store.kill(bench.stores.object_store_file)
    file = rows.write(bench.folder / "without-store.jsonl", rows.rows(40, seed=13))
    upload = bench.start_command("dataset", "upload", file, "--base-model", MODEL, "--output", "json", log="upload-waits.txt")
    download = bench.start_command("delta", "download", bench.first_job, "--to", bench.folder / "delta-waits", log="download-waits.txt")
    log = bench.server.text
    wait_for("both to be refused", lambda: "DatasetService/GetUploadStatus failed: UNAVAILABLE OBJECT_STORE" in log()
             and "DeltaService/GetDeltaLinks failed: UNAVAILABLE OBJECT_STORE" in log(), 30)
    check(bench.job(bench.first_job) == bench.finished_job, "the job changed")
    check(upload.running() and download.running(), f"given up:\n{upload.text()}\n{download.text()}")
    object_store.run(bench.stores.object_store_file)
    check(upload.wait(60) == 0 and '"READY"' in upload.text(), upload.text())
    check(download.wait(60) == 0, download.text())
    for text in (upload.text(), download.text()):
        check("s3://" not in text and object_store.BUCKET not in text, f"a customer sees where blobs are: {text}")
    check_one_delta(bench, job, {1, 2, 3})
    shutil.rmtree(bench.folder / "deltas" / job)


@STEPS.step("a full disk refuses an upload and keeps the rest; with space it goes on", needs=[LONG], blobs="folder")
def full_disk(bench):
    check(bench.server.terminate() == 0, "the server did not stop cleanly")
    limit = 12 << 20

    def no_file_above_the_limit():
        # Writes beyond it fail as on a full disk: EFBIG instead of a signal, since Python ignores SIGXFSZ.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    bench.server = bench.start_server(preexec=no_file_above_the_limit, keep_ignored=True)
    file = bench.folder / "full.jsonl"
    with open(file, "w") as out:
        for line in rows.rows(12, seed=11):
            out.write(line + "\n")
        for number in range(10):
            out.write(f'{{"number": {number}, "filler": "{"x" * (2 << 20)}"}}\n')
    result = bench.run("dataset", "upload", file, "--base-model", MODEL, "--output", "json")
    check(result.code == 5 and result.error()["reason"] == "DISK_FULL", result.describe()[-2000:])
    dataset = result.error()["message"].split("--resume ")[1].split(")")[0]
    check(bench.job(bench.first_job) == bench.finished_job, "the job changed")
    bench.ok("delta", "download", bench.first_job, "--to", bench.folder / "delta-full")
    check(bench.server.terminate() == 0, "the server did not stop cleanly")
    bench.server = bench.start_server()
    good = bench.ok_json("dataset", "upload", file, "--resume", dataset)
    check(good["state"] == "READY" and int(good["sizeBytes"]) == file.stat().st_size, f"{good['state']}")
    bench.ok("dataset", "delete", dataset)
    file.unlink()


def worker_config(bench, name, **values):
    """A copy of the worker's configuration with other values."""
    return with_values(bench.data / "worker.yaml", bench.folder / name, **values)


@STEPS.step("a worker without its vault key does not start, and says why", needs=[LONG])
def missing_vault_key(bench):
    worker = bench.start_worker(worker_config(bench, "no-key.yaml", vault_key_file=bench.folder / "no.key",
                                              worker_id="keyless"))
    check(worker.wait(30) == 2 and "VAULT_KEY_FILE_MISSING" in worker.text(), worker.text()[-2000:])
    bad = bench.folder / "bad.key"
    bad.write_text("this is no key\n")
    bad.chmod(0o600)
    worker = bench.start_worker(worker_config(bench, "bad-key.yaml", vault_key_file=bad, worker_id="badkey"))
    check(worker.wait(30) == 2 and "VAULT_KEY_FILE_INVALID" in worker.text(), worker.text()[-2000:])


@STEPS.step("a worker with a wrong API key gets no work, and says why", needs=[LONG])
def wrong_worker_key(bench):
    key = bench.folder / "wrong.key"
    key.write_text("0" * 64 + "\n")
    key.chmod(0o600)
    config = worker_config(bench, "wrong-api-key.yaml", api_key_file=key, worker_id="stranger")
    stranger = bench.start("ballast-worker", ["--config", config], "stranger.log")
    stranger.wait_for_text("API_KEY_INVALID", 20)
    names = [short(worker["name"]) for worker in bench.ok_json("model", "workers")["workers"]]
    check("stranger" not in names, f"the server lists {names}")
    # It tries on, so that a corrected server is enough; and it stops when asked.
    check(stranger.running() and stranger.terminate(10) == 0, stranger.text()[-2000:])


@STEPS.step("a worker with another vault key trains nothing unprotected; the right one does the job", needs=[LONG])
def wrong_vault_key(bench):
    check(bench.worker.terminate() == 0, "the worker did not stop cleanly")
    other = bench.folder / "other-vault.key"
    other.write_text("ab" * 32 + "\n")
    other.chmod(0o600)
    config = worker_config(bench, "other-vault.yaml", vault_key_file=other, worker_id="other-vault")
    stranger = bench.start("ballast-worker", ["--config", config], "other-vault.log")
    job = short(bench.ok_json("job", "create", *steps_main.job_arguments(bench))["name"])
    found = bench.wait_for_state(job, ("FAILED", "SUCCEEDED"), 60)
    check(found["state"] == "FAILED", f"the job is {found['state']} although its vector cannot be opened")
    error = found["error"]
    check(error["kind"] == "PLATFORM", f"{error}")
    for secret in ("vault", "AES", "key"):
        check(secret not in error["message"].split(), f"the customer is told of the vault: {error}")
    check(bench.run("job", "watch", job).code == 6, "the watch does not end with 6")
    check("VAULT_KEY_WRONG" in stranger.text(), stranger.text()[-2000:])
    stranger.terminate()
    bench.worker = bench.start_worker()
    again = short(bench.ok_json("job", "create", *steps_main.job_arguments(bench))["name"])
    check_one_delta(bench, again, {1})


@LAST_STEPS.step("same seed, same bytes, however often a job was killed or paused", needs=[LONG])
def same_bytes(bench):
    adapters = {}
    for folder in (bench.folder / "deltas").iterdir():
        digest = hashlib.sha256((folder / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()
        adapters.setdefault(bench.job(folder.name)["trainingDataset"], {}).setdefault(digest, []).append(folder.name)
    long_jobs = adapters[f"tenants/dev/datasets/{bench.long_training}"]
    check(sum(map(len, long_jobs.values())) >= 4, f"too few jobs to compare: {long_jobs}")
    check(len(long_jobs) == 1, f"the adapters differ: {long_jobs}")
    first = hashlib.sha256((bench.delta / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()
    check(list(adapters[bench.training["name"]]) == [first], f"{adapters[bench.training['name']]}, not {first}")


@LAST_STEPS.step("a retired vector serves no new job", needs=[LONG])
def retire(bench):
    vector = short(bench.vector["name"])
    check(bench.ok_json("vector", "retire", vector)["state"] == "RETIRED", "not retired")
    bench.refused(4, "VECTOR_NOT_ACTIVE", "vector", "retire", vector)
    bench.refused(4, "VECTOR_NOT_CERTIFYING", "vector", "activate", vector, "--reason", "it is retired, though")
    bench.refused(3, "VECTOR_NOT_FOUND", "vector", "retire", f"vec-{'0' * 32}")
    bench.refused(4, "NO_ACTIVE_VECTOR", "job", "create", *steps_main.job_arguments(bench))
    bench.ok("delta", "download", bench.first_job, "--to", bench.folder / "delta-retired")


@LAST_STEPS.step("both programs stop cleanly on SIGTERM", needs=[LONG])
def stop(bench):
    check(bench.worker.terminate() == 0, f"the worker: {bench.worker.text()[-1000:]}")
    check(bench.server.terminate() == 0, f"the server: {bench.server.text()[-1000:]}")
    check(not any(bench.address_file(server).exists() for server in bench.servers), "the server left its address file")
