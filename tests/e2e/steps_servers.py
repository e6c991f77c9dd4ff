# SPDX-License-Identifier: Apache-2.0
"""Several servers on one database and one object store (--servers 2): what one knows the other does, and each goes on where the
other is dead. In the steps before, "the server" is all of them."""

import rows
import steps_main
from harness import Steps, check, short, wait_for
from steps_failures import LONG, LONG_EPOCHS, check_large_upload, check_one_delta, check_watch, long_job, start_large_upload
from steps_failures import worker_config

STEPS = Steps()
MODEL = steps_main.MODEL
# In which a server that has died is known to be gone, with what it was in the middle of (LiveServers::kPatience and a sign).
GONE_SECONDS = 40


def of_workers(bench):
    return bench.servers[0]


def of_customers(bench):
    return bench.servers[-1]


def watched_job(bench, log):
    """A long job in the middle of its training, and a watch of it."""
    job = long_job(bench)
    watch = bench.start_command("job", "watch", job, "--output", "json", log=log)
    bench.wait_for_step(job, 10)
    return job, watch


@STEPS.step("how far a job is at one server, and whose workers there are, is seen at the other", needs=[LONG], several=True)
def seen_at_the_other(bench):
    job = long_job(bench, epochs=4 * LONG_EPOCHS)

    def progress():
        found = bench.job(job)
        check(found["state"] in ("QUEUED", "RUNNING"), f"the job is {found['state']} before its progress was seen")
        return int(found.get("progress", {}).get("step", 0))

    wait_for("its progress at the other server", progress, 30, 0.2)
    names = [
        [short(worker["name"]) for worker in bench.ok_json("model", "workers", profile=bench.profile_of(server))["workers"]]
        for server in bench.servers
    ]
    check(sorted(names[0]) == sorted(names[1]) and names[0], f"the servers list other workers: {names}")
    bench.ok("job", "cancel", job)
    bench.wait_for_state(job, ("CANCELLED",), 20, profile=bench.workers_profile)


@STEPS.step("servers are stopped and started again one by one: a job goes on, and so does its watch", needs=[LONG], several=True)
def one_after_the_other(bench):
    job, watch = watched_job(bench, "watch-rolling.txt")
    for server in bench.servers:
        check(server.program.terminate() == 0, f"{server.name} did not stop cleanly:\n{server.program.text()[-2000:]}")
        bench.server = bench.start_server()
    check_one_delta(bench, job, {1, 2})
    check_watch(watch)


@STEPS.step("kill -9 of the workers' server: the other one goes on, and the job once it is back", needs=[LONG], several=True)
def kill_workers_server(bench):
    job, watch = watched_job(bench, "watch-of-the-other.txt")
    of_workers(bench).program.kill()
    file = rows.write(bench.folder / "beside-a-dead-server.jsonl", rows.rows(40, seed=14))
    dataset = short(bench.ok_json("dataset", "upload", file, "--base-model", MODEL)["name"])
    waiting = short(bench.ok_json("job", "create", *steps_main.job_arguments(bench))["name"])
    check(bench.job(waiting)["state"] == "QUEUED", "a job runs that no worker can have been given")
    bench.server = bench.start_server()
    check_one_delta(bench, job, {1, 2})
    check_one_delta(bench, waiting, {1})
    check_watch(watch)
    bench.ok("dataset", "delete", dataset)


@STEPS.step("where it stays away a worker of the other server takes over, and the first one gives way", needs=[LONG], several=True)
def take_over(bench):
    job, watch = watched_job(bench, "watch-taken-over.txt")
    before = len(bench.worker.text())
    of_workers(bench).program.kill()
    config = worker_config(bench, "second-worker.yaml", server_address=f"127.0.0.1:{of_customers(bench).port}",
                           worker_id="second", cache_dir=bench.folder / "second-cache")
    second = bench.start_worker(config, log="second-worker.log")
    check_one_delta(bench, job, {2})
    check_watch(watch)
    bench.server = bench.start_server()
    # It is told while it trains, or when it reports what it has made.
    told = ("the lease is lost", "the server does not take the result")
    wait_for("the first worker to give way", lambda: any(text in bench.worker.text()[before:] for text in told), 60)
    check(second.terminate() == 0, f"the second worker: {second.text()[-2000:]}")
    check_one_delta(bench, short(bench.ok_json("job", "create", *steps_main.job_arguments(bench))["name"]), {1})


@STEPS.step("kill -9 of the customers' server: the job finishes, and its watch once it is back", needs=[LONG], several=True)
def kill_customers_server(bench):
    job, watch = watched_job(bench, "watch-interrupted.txt")
    of_customers(bench).program.kill()
    bench.wait_for_state(job, ("SUCCEEDED",), 60, profile=bench.workers_profile)
    check(watch.running(), f"the watch has given up:\n{watch.text()[-2000:]}")
    bench.server = bench.start_server()
    check_one_delta(bench, job, {1})
    check_watch(watch)


@STEPS.step("an upload that its server has died under goes on at the other one", needs=[LONG], several=True)
def upload_goes_on(bench):
    upload, file = start_large_upload(bench, "upload-orphaned.txt")
    of_customers(bench).program.kill()
    check(upload.running(), f"the upload was over before the server was killed; make the file larger:\n{upload.text()}")
    upload.kill()
    there = {"profile": bench.workers_profile}
    dataset = short(bench.ok_json("dataset", "list", **there)["datasets"][0]["name"])

    def uploaded():
        result = bench.run("dataset", "upload", file, "--resume", dataset, "--output", "json", **there)
        return result.json() if result.code == 0 else None

    found = wait_for("the upload to be taken up", uploaded, GONE_SECONDS + 30, 1)
    bench.server = bench.start_server()
    check_large_upload(bench, found, file)
