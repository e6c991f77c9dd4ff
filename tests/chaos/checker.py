# SPDX-License-Identifier: Apache-2.0
"""Looks at the database and the blobs by itself, past the code that is tested, and says what must not be there."""

import json
import pathlib
import sys

import protos

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "services"))

from stores import digest_of  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED")


def legal_moves():
    """{(state, next state)} of docs/job_states.md."""
    moves, states = set(), None
    for line in (ROOT / "docs" / "job_states.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "job state":
            states = True
        elif states and cells[0].isupper():
            moves.update((cells[0], cell) for cell in cells[1:] if cell.isupper() and cell != cells[0])
        elif states and not line.startswith("|"):
            break
    return moves


class Checker:
    """`world` gives the database and the folder; nothing runs any more."""

    def __init__(self, world, ledger):
        self._world, self._ledger = world, ledger
        self._blobs = world.stores.blobs
        self._record = protos.load("server.core.record_pb2")
        states = protos.load("ballast.v1.dataset_service_pb2").Dataset.State
        self._settled = (states.Value("READY"), states.Value("INVALID"))
        self._job = protos.load("ballast.v1.fine_tuning_job_pb2")
        self.problems = []
        self.counts = {"jobs": 0, "succeeded": 0, "datasets": 0, "events": 0, "lost": 0, "duplicate_deltas": 0, "stuck": 0,
                       "orphans": 0}

    def _problem(self, kind, text):
        if kind:
            self.counts[kind] += 1
        self.problems.append(text)

    def _records(self, table, message):
        return {(scope, identifier): record
                for scope, identifier, record in self._world.parsed(table, ("scope", "id"), "record", message)}

    def run(self):
        datasets = self._records("datasets", self._record.DatasetRecord)
        all_jobs = self._records("jobs", self._record.JobRecord)
        self._check_deleted(all_jobs.values())
        jobs = {key: record for key, record in all_jobs.items() if not record.deleted}
        self.counts.update(jobs=len(jobs), datasets=len(datasets))
        self._check_datasets({record.dataset.name: record for record in datasets.values()})
        by_name = {record.job.name: record for record in jobs.values()}
        self._check_jobs(by_name)
        self._check_events(by_name)
        self._check_blobs(datasets, jobs)
        self._check_usage(all_jobs.values())
        self.problems += self._ledger.problems

    def _check_datasets(self, datasets):
        for name, digest in self._ledger.datasets.items():
            record = datasets.get(name)
            if record is not None and record.dataset.state not in self._settled:
                self._problem("stuck", f"{name} was never checked")
            if record is None or record.dataset.digest != digest or digest_of(self._blobs / record.blob) != digest:
                self._problem("lost", f"{name} was taken and is not there as it was sent")
        for name in datasets.keys() - self._ledger.created:
            self._problem(None, f"{name} is there and nobody was told so")

    def _check_jobs(self, jobs):
        states = self._job.FineTuningJob.State
        for name in self._ledger.jobs:
            if name not in jobs:
                self._problem("lost", f"{name} was acknowledged and is not there")
        for name in jobs.keys() - self._ledger.jobs.keys():
            self._problem(None, f"{name} is there and nobody was told so")
        for name in jobs.keys() & self._ledger.deleted:
            self._problem("lost", f"{name} was deleted and is there")
        by_work = {}
        for name, record in jobs.items():
            state = states.Name(record.job.state)
            if state not in FINAL:
                self._problem("stuck", f"{name} is {state}")
            seen = self._ledger.ends.get(name)
            if seen is not None and seen != (state, record.job.manifest_digest):
                self._problem("lost", f"{name} was told to be {seen} and is {state}, {record.job.manifest_digest}")
            about = self._ledger.jobs.get(name, {})
            if state == "CANCELLED" and not about.get("cancelled") and about:
                self._problem(None, f"{name} is CANCELLED and nobody asked for it")
            # R2: one delta, whole, under one attempt.
            attempts = {path.name: path for path in self._blobs.glob(f"jobs/{record.tenant}/{record.id}/attempts/*") if path.is_dir()}
            if state != "SUCCEEDED":
                if any(path.is_file() for attempt in attempts.values() for path in attempt.rglob("*")):
                    self._problem("orphans", f"{name} is {state} and has files: {sorted(attempts)}")
                continue
            self.counts["succeeded"] += 1
            deltas = [attempt for attempt in attempts.values() if (attempt / "delta").exists()]
            if len(deltas) != 1:
                self._problem("duplicate_deltas", f"{name} has {len(deltas)} deltas")
            else:
                self._check_manifest(name, record, deltas[0] / "delta")
            for file in record.delta_files:
                path = self._blobs / file.blob
                if digest_of(path) != file.digest:
                    self._problem("lost", f"{name}: {file.path} is not there as its manifest says")
                elif file.path.endswith("adapter_model.safetensors") and about:
                    body = self._ledger.bodies[about["dataset"]]
                    by_work.setdefault((body, about["seed"]), {}).setdefault(file.digest, []).append(name)
        for (body, seed), adapters in by_work.items():
            if len(adapters) != 1:
                self._problem(None, f"the rows {body} and the seed {seed} have made different adapters: {adapters}")
        self.counts["same_work"] = sum(len(names) for adapters in by_work.values() for names in adapters.values()) - len(by_work)

    def _check_manifest(self, name, record, delta):
        manifest_file = delta / "manifest.json"
        if digest_of(manifest_file) != record.job.manifest_digest:
            self._problem("lost", f"{name}: its manifest is not the one that it names")
            return
        manifest = json.loads(manifest_file.read_text())
        said = {file["path"]: file["digest"] for file in manifest["files"]}
        found = {str(path.relative_to(delta)): digest_of(path) for path in delta.rglob("*") if path.is_file()}
        del found["manifest.json"]
        kept = {file.path: file.digest for file in record.delta_files if file.path != "manifest.json"}
        if not said or not found == said == kept:
            self._problem("lost", f"{name}: manifest, files and record differ: {said}, {found}, {kept}")
        if manifest["job"] != {"name": name, "attempt": record.job.attempt}:
            self._problem("lost", f"{name}, attempt {record.job.attempt}: the manifest is of {manifest['job']}")

    def _check_deleted(self, jobs):
        for record in jobs:
            if record.deleted and record.job.name not in self._ledger.deleted:
                self._problem("lost", f"{record.job.name} is deleted and nobody asked for it")
            if record.deleted and any(path.is_file() for path in (self._blobs / "jobs" / record.tenant / record.id).rglob("*")):
                self._problem("orphans", f"{record.job.name} is deleted and has files")

    def _check_usage(self, jobs):
        used = sum(record.job.usage.trained_tokens for record in jobs)
        months = self._records("usage", self._record.UsageRecord).values()
        counted = sum(record.usage.trained_tokens for record in months)
        if used != counted:
            self._problem("lost", f"jobs have used {used} tokens, and the months say {counted}")

    def _check_events(self, jobs):
        events = {}
        for scope, job, sequence, parsed in self._world.parsed("job_events", ("scope", "job", "sequence"), "event", self._job.JobEvent):
            events.setdefault(f"tenants/{scope}/fineTuningJobs/{job}", {})[int(sequence)] = parsed
        moves, states = legal_moves(), self._job.FineTuningJob.State
        for name, record in jobs.items():
            own = events.get(name, {})
            self.counts["events"] += len(own)
            for sequence, told in self._ledger.events.get(name, {}).items():
                if sequence not in own or own[sequence].SerializeToString(deterministic=True) != told:
                    self._problem("lost", f"{name}: event {sequence} is another one than was told")
            if sorted(own) != list(range(1, len(own) + 1)) or record.last_event != len(own):
                self._problem("lost", f"{name}: its events are {sorted(own)}, the last {record.last_event}")
            path = [states.Name(own[i].state_changed.state) for i in sorted(own) if own[i].HasField("state_changed")]
            if path[:1] != ["QUEUED"] or path[-1] != states.Name(record.job.state):
                self._problem("lost", f"{name} is {states.Name(record.job.state)} and went {path}")
            for move in zip(path, path[1:]):
                if move not in moves:
                    self._problem(None, f"{name} went from {move[0]} to {move[1]}")

    def _check_blobs(self, datasets, jobs):
        named = set()
        for record in datasets.values():
            named.add(record.blob)
        for record in jobs.values():
            named.update(file.blob for file in record.delta_files)
            named.add(record.checkpoint_blob)
        for record in self._records("base_models", self._record.BaseModelRecord).values():
            named.update(file.blob for file in record.files)
            named.update((record.gate_blob, record.safety_rows_blob, f"{record.screen_blobs}/prohibited", f"{record.screen_blobs}/benign"))
        for record in self._records("vectors", self._record.VectorRecord).values():
            named.update((record.sealed_blob, record.prohibited_blob, record.benign_blob, record.topics_blob))
        for (prefix,) in self._world.query("SELECT blob_prefix FROM garbage"):
            self._problem(None, f"{prefix} waits to be deleted")
        for name in self._world.stores.blob_names() - named:
            self._problem("orphans", f"no record names the blob {name}")
        for path in self._world.stores.unfinished():
            self._problem("orphans", f"{path.name} was left half written")
