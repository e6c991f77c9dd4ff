# SPDX-License-Identifier: Apache-2.0
"""Signed links of the object store: bytes that never pass the server, by the command line and by curl."""

import hashlib
import json
import re
import shutil
import subprocess

import rows
import steps_main
from harness import Skip, Steps, check, short, wait_for
from steps_bad_input import raw, raw_refused

STEPS = Steps()
STORE = "object store"
# The first job has SUCCEEDED.
TRAINED = steps_main.STEPS[11].name


def counted(bench, name):
    """A counter of the metrics page, of all servers together."""
    values = re.findall(rf"^ballast_server_{name} (\S+)$", bench.metrics(), re.MULTILINE)
    check(values, f"no counter {name} on the metrics page")
    return sum(float(value) for value in values)


def counters(bench):
    """(bytes received, bytes sent, links given) so far."""
    return tuple(counted(bench, name) for name in ("uploaded_bytes_total", "sent_bytes_total", "links_total"))


def curl(*arguments, expect="200"):
    """Runs curl, which prints what it wrote of the status."""
    program = shutil.which("curl")
    if program is None:
        raise Skip("curl is not installed")
    command = [program, "--silent", "--show-error", "--write-out", "%{http_code}", *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60)
    status = finished.stdout[-3:]
    check(status == expect, f"curl was answered with {status}, not {expect}: {finished.stderr}")


def call(bench, service, method, request):
    return raw(bench, "call", f"ballast.v1.{service}", method, json.dumps(request))["response"]


def delta_links(bench, path):
    name = f"tenants/dev/fineTuningJobs/{bench.first_job}/delta"
    return call(bench, "DeltaService", "GetDeltaLinks", {"name": name, "path": path})


@STEPS.step("rows are uploaded, trained on and delivered by links: no byte passes the server", needs=[TRAINED], blobs=STORE)
def past_the_server(bench):
    received, sent, links = counters(bench)
    file = rows.write(bench.folder / "linked.jsonl", rows.rows(60, seed=31))
    dataset = bench.ok_json("dataset", "upload", file, "--base-model", steps_main.MODEL)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    check(dataset["state"] == "READY" and dataset["digest"] == f"sha256:{digest}", f"{dataset}")
    arguments = ["--base-model", steps_main.MODEL, "--training", short(dataset["name"]), "--batch-rows", 8]
    job = short(bench.ok_json("job", "create", *arguments)["name"])
    bench.wait_for_state(job, ("SUCCEEDED",), 120)
    folder = bench.folder / "delta-linked"
    result = bench.ok("delta", "download", job, "--to", folder)
    check("through the server" not in result.err, f"links did not work:\n{result.err}")
    bench.ok("delta", "verify", folder, "--job", job)
    received_now, sent_now, links_now = counters(bench)
    check(received_now == received, f"{received_now - received} bytes of the data set went through the server")
    check(sent_now == sent, f"{sent_now - sent} bytes were sent by the server")
    # A part of the data set, the rows and the vector for the worker, and each file of the delta.
    files = sum(path.is_file() for path in folder.rglob("*"))
    check(links_now - links >= 3 + files, f"{links_now - links} links for {files} files")
    names = [name for name in bench.stores.blob_names() if name.startswith("incoming/")]
    check(not names, f"left of the upload: {names}")
    bench.linked_job = job


@STEPS.step("--no-links sends every byte through the server", needs=[STEPS[0].name], blobs=STORE)
def no_links(bench):
    received, sent, links = counters(bench)
    file = rows.write(bench.folder / "unlinked.jsonl", rows.rows(40, seed=32))
    dataset = bench.ok_json("dataset", "upload", file, "--base-model", steps_main.MODEL, "--no-links")
    folder = bench.folder / "delta-unlinked"
    bench.ok("delta", "download", bench.linked_job, "--to", folder, "--no-links")
    received_now, sent_now, links_now = counters(bench)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    check(received_now - received == file.stat().st_size, f"{received_now - received} bytes were received")
    check(sent_now - sent == size, f"{sent_now - sent} bytes were sent, not {size}")
    check(links_now == links, "links were given")
    for path in folder.rglob("*.json"):
        other = bench.folder / "delta-linked" / path.relative_to(folder)
        check(path.read_bytes() == other.read_bytes(), f"{path} differs from what came by links")
    bench.ok("dataset", "delete", short(dataset["name"]))


@STEPS.step("curl downloads a delta by a link, without a key; a changed link is refused", needs=[TRAINED], blobs=STORE)
def curl_downloads(bench):
    path = "adapter/adapter_model.safetensors"
    answer = delta_links(bench, path)
    check(len(answer["links"]) == 1 and answer["links"][0].get("offset", "0") == "0", f"{len(answer['links'])} links")
    url = answer["links"][0]["url"]
    file = bench.folder / "by-curl.safetensors"
    curl("--output", file, url)
    bytes_of_file = file.read_bytes()
    check(len(bytes_of_file) == int(answer["sizeBytes"]), "another size")
    check(answer["digest"] == f"sha256:{hashlib.sha256(bytes_of_file).hexdigest()}", "another digest")
    curl("--output", file, "--range", "100-199", url, expect="206")
    check(file.read_bytes() == bytes_of_file[100:200], "another range")
    nothing = bench.folder / "by-curl.refused"
    curl("--output", nothing, url.replace("X-Amz-Expires=300", "X-Amz-Expires=3000"), expect="403")
    curl("--output", nothing, url.replace("adapter_model", "adapter_config"), expect="403")
    curl("--output", nothing, "--upload-file", file, url, expect="403")
    curl("--output", nothing, "--request", "DELETE", url, expect="403")
    curl("--output", file, url)
    check(file.read_bytes() == bytes_of_file, "the delta was changed by a link")
    name = f"tenants/dev/fineTuningJobs/{bench.first_job}/delta"
    request = json.dumps({"name": name, "path": path})
    arguments = ("call", "ballast.v1.DeltaService", "GetDeltaLinks", request)
    raw_refused(bench, "PERMISSION_DENIED", "TENANT_ONLY", *arguments, key="worker")
    raw_refused(bench, "UNAUTHENTICATED", "API_KEY_MISSING", *arguments, key=None)


@STEPS.step("curl uploads a data set by links; what it writes afterwards changes nothing", needs=[TRAINED], blobs=STORE)
def curl_uploads(bench):
    file = rows.write(bench.folder / "by-curl.jsonl", rows.rows(40, seed=33))
    base = f"baseModels/{steps_main.MODEL}"
    dataset = call(bench, "DatasetService", "CreateDataset", {"parent": "tenants/dev", "dataset": {"baseModel": base}})
    name = dataset["name"]
    upload = call(bench, "DatasetService", "StartDirectUpload", {"name": name, "sizeBytes": file.stat().st_size})
    (part,) = upload["parts"]
    nothing = bench.folder / "by-curl.answer"
    curl("--output", nothing, "--upload-file", file, part["url"])
    digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    finished = call(bench, "DatasetService", "FinishDirectUpload", {"name": name, "digest": digest})
    check(finished["state"] in ("VALIDATING", "READY") and finished["digest"] == digest, f"{finished}")
    other = rows.write(bench.folder / "by-curl-late.jsonl", ["{broken"] * 40)
    curl("--output", nothing, "--upload-file", other, part["url"])

    def checked():
        found = bench.ok_json("dataset", "show", short(name))
        return found if found["state"] == "READY" else None

    found = wait_for("the rows to be checked", checked)
    check(int(found["report"]["rowsAccepted"]) == 40, f"{found}")
    bench.ok("dataset", "delete", short(name))


@STEPS.step("links that cannot be are refused with the configuration", needs=[steps_main.STEPS[0].name], blobs=STORE)
def bad_configuration(bench):
    good = (bench.data / "server.yaml").read_text()
    wrong = (
        ("SECONDS_OUT_OF_RANGE", "{seconds: 5}", "s3:"),
        ("ENDPOINT_INVALID", "{endpoint: s3.example.com}", "s3:"),
        ("ENDPOINT_INVALID", '{endpoint: "https://s3.example.com"}', "gs:"),
    )
    for reason, links, scheme in wrong:
        file = bench.folder / "bad-links.yaml"
        changed = re.sub(r"(?m)^(\s+)links:.*(\n\1  .*)*", rf"\1links: {links}", good)
        file.write_text(changed.replace("s3://", f"{scheme}//"))
        check(all(part in file.read_text() for part in (links, f"{scheme}//")), "the configuration has no links to change")
        finished = subprocess.run(
            [bench.bin / "ballast-server", "--config", file, "--check-config"], capture_output=True, text=True, timeout=60
        )
        check(finished.returncode == 2 and reason in finished.stderr, f"{finished.returncode}: {finished.stderr}")
