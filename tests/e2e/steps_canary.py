# SPDX-License-Identifier: Apache-2.0
"""S4: the vector of this run is in nothing that the run left behind: database, blobs, logs, what commands printed,
the metrics page, deltas."""

import pathlib
import subprocess
import tempfile

import models
import steps_failures
import steps_main
from harness import Skip, Steps, check, python, short

STEPS = Steps()
HERE = pathlib.Path(__file__).resolve().parent
# The worker's vault binds a sealed vector to these.
TRAINED = steps_main.STEPS[8].name


def search(vector, base, *places):
    finished = subprocess.run(
        [python(), "-B", HERE / "canary.py", vector, base, *places], capture_output=True, text=True, timeout=300
    )
    check(finished.returncode in (0, 1) and "files searched" in finished.stdout, finished.stdout + finished.stderr)
    *findings, summary = finished.stdout.splitlines()
    return findings, int(summary.split()[0])


@STEPS.step("the vector is in nothing that this run left behind (S4)", needs=[TRAINED, steps_failures.STEPS[0].name])
def canary(bench):
    unseal = bench.build / "tests" / "e2e" / "unseal_for_test"
    if not unseal.exists():
        raise Skip(f"{unseal} is not built")
    # A folder that the search does not see: the vector is in clear here and nowhere else.
    with tempfile.TemporaryDirectory(prefix="ballast-canary-") as secret:
        clear = pathlib.Path(secret) / "vector.safetensors"
        sealed = [
            path
            for path in bench.stores.blobs.rglob("*")
            if path.is_file() and path.read_bytes()[:8] == b"BALLSTV\x01"
        ]
        check(sealed, "no sealed file among the server's blobs; has the format changed?")
        for path in sealed:
            finished = subprocess.run(
                [unseal, bench.data / "keys" / "vault.key", short(bench.vector["name"]), str(bench.vector["version"])]
                + [bench.vector["baseDigest"], path, clear],
                capture_output=True,
                text=True,
            )
            if finished.returncode == 0:
                break
        check(clear.exists(), f"none of {len(sealed)} sealed files is the vector: {finished.stderr}")
        base = bench.model_folder / "model.safetensors"

        # The search finds this vector: 16 bytes of it in the middle of a log.
        header, body = models.read_safetensors(clear)
        begin, _ = header[models.tensors(header)[0]]["data_offsets"]
        planted = pathlib.Path(secret) / "planted.log"
        planted.write_bytes(b"a line of a log\n" * 100 + body[begin + 8 : begin + 24] + b"\nanother line\n")
        findings, _ = search(clear, base, planted)
        check(findings, "the planted bytes were not found")

        bench.stores.dump_database(bench.outputs / "database.sql")
        for folder in [bench.folder, *(folder for folder in bench.stores.all_bytes if bench.folder not in folder.parents)]:
            findings, count = search(clear, base, folder)
            check(not findings, f"{len(findings)} findings:\n" + "\n".join(findings[:20]))
            check(count > 20, f"only {count} files were searched in {folder}")


@STEPS.step("no key and no row is in any log", needs=[steps_main.STEPS[0].name])
def secrets_in_logs(bench):
    keys = [path.read_text().strip() for path in (bench.data / "keys").iterdir()]
    keys.append((bench.folder / "other.key").read_text().strip())
    # A signed link is a secret, too.
    content = ["withheld thing number", "what of rope", "what of tar", "X-Amz-Signature"]
    logs = [*(bench.folder / "logs").glob("*"), *(bench.data / "logs").glob("*"), bench.outputs / "metrics.txt"]
    for log in logs:
        text = log.read_text(errors="replace")
        for secret in keys + content:
            check(secret not in text, f"{log} holds {'a key' if secret in keys else repr(secret)}")
