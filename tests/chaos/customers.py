# SPDX-License-Identifier: Apache-2.0
"""Customers who upload, create, watch, pause, cancel and download while programs are killed, and remember what they were
told: the ledger. Each repeats a call until it is answered, as the API promises that it may."""

import hashlib
import random
import threading
import time
import uuid

import grpc
import protos
import world  # noqa: F401 - finds the modules of the end-to-end tests
import rows
from google.rpc import error_details_pb2, status_pb2

ROWS = 120
# Codes after which the same call may be made again.
AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
# Reasons after which an upload asks where it stands, and goes on; as the client library does.
UPLOAD_AGAIN = ("WRITE_OFFSET_MISMATCH", "UPLOAD_FINISHED", "UPLOAD_IN_PROGRESS", "BLOB_BUSY")
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED")
SEEDS = (1, 2)


class Stop(Exception):
    """The run ends."""


def reason_of(error):
    """Reason of the ErrorInfo of a failed call."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return info.reason
    return ""


class Ledger:
    """What was acknowledged. Thread safety: thread-safe."""

    def __init__(self):
        self._lock = threading.Lock()
        self.created = set()  # data sets
        self.datasets = {}  # name -> digest of the bytes that were taken, of those that were not deleted
        self.bodies = {}  # the same, of all
        self.jobs = {}  # name -> {dataset, seed, cancelled}
        self.ends = {}  # name -> (state, manifest digest) that was seen, of those that were not deleted
        self.events = {}  # job -> {sequence -> bytes that a watch has brought}
        self.deleted = set()  # jobs
        self.problems = []  # what customers saw that must not be

    def dataset(self, name, digest):
        with self._lock:
            self.datasets[name] = self.bodies[name] = digest

    def dataset_created(self, name):
        with self._lock:
            self.created.add(name)

    def dataset_deleted(self, name):
        """Before it is asked for: from here on nothing is known of it."""
        with self._lock:
            self.datasets.pop(name, None)

    def event(self, job, event):
        with self._lock:
            self.events.setdefault(job, {})[event.sequence] = event.SerializeToString(deterministic=True)

    def job_deleted(self, name):
        with self._lock:
            self.deleted.add(name)
            for known in (self.jobs, self.ends, self.events):
                known.pop(name, None)

    def job(self, name, **about):
        with self._lock:
            self.jobs[name] = {**self.jobs.get(name, {}), **about}

    def end(self, name, state, manifest):
        with self._lock:
            self.ends[name] = (state, manifest)

    def problem(self, text):
        with self._lock:
            self.problems.append(text)

    def open_jobs(self):
        with self._lock:
            return [name for name in self.jobs if name not in self.ends]


def channel_to(addresses):
    """To one server, or to several: then each call goes to the next one that is up."""
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50),
               ("grpc.max_reconnect_backoff_ms", 250)]
    if len(addresses) == 1:
        return grpc.insecure_channel(addresses[0], options=options)
    return grpc.insecure_channel("ipv4:" + ",".join(addresses), options=[*options, ("grpc.lb_policy_name", "round_robin")])


class Customer(threading.Thread):
    def __init__(self, addresses, tenant, key, base_model, ledger, seed, folder):
        super().__init__(daemon=True)
        self._draw = random.Random(f"customer {seed}")
        self._ledger, self._folder, self._number = ledger, folder, seed
        self._parent, self._base_model = f"tenants/{tenant}", f"baseModels/{base_model}"
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._channel = channel_to(addresses)
        self._messages = {name: protos.load(f"ballast.v1.{name}_pb2") for name in
                          ("dataset_service", "fine_tuning_job", "fine_tuning_service", "delta_service")}
        stub = lambda name, service: getattr(protos.load(f"ballast.v1.{name}_pb2_grpc"), f"{service}Stub")(self._channel)  # noqa: E731
        self._datasets = stub("dataset_service", "DatasetService")
        self._jobs = stub("fine_tuning_service", "FineTuningService")
        self._deltas = stub("delta_service", "DeltaService")
        self._ending = threading.Event()  # begin nothing new
        self._abandon = threading.Event()  # stop at once
        self.own = []  # data sets that can be trained on
        self.doing = "nothing yet"
        self._uploads = 0

    def finish(self):
        """Begins nothing new, and ends once all that was begun has ended."""
        self._ending.set()

    def abandon(self):
        self._ledger.problem(f"customer {self._number} hangs: {self.doing}")
        self._abandon.set()
        self._channel.close()

    def run(self):
        try:
            while not self._ending.is_set():
                if not self.own or self._draw.random() < 0.4:
                    self._upload()
                if len(self.own) > 3:
                    self._delete_dataset(self.own.pop(0))
                self._life_of_a_job()
        except Stop:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it was, the run must tell
            if not self._abandon.is_set():
                self._ledger.problem(f"customer {self._number}: {type(error).__name__}: {error}")

    # Calls.

    def _call(self, method, request, timeout=10, final=()):
        """Repeats until answered. A refusal whose reason is in `final` is None, another one raises."""
        while True:
            if self._abandon.is_set():
                raise Stop
            try:
                return method(request, timeout=timeout, metadata=self._metadata)
            except grpc.RpcError as error:
                if error.code() in AGAIN:
                    time.sleep(0.05)
                    continue
                if reason_of(error) in final:
                    return None
                raise

    def _state(self, job):
        return self._messages["fine_tuning_job"].FineTuningJob.State.Name(job.state)

    # What customers do.

    def _upload(self):
        messages = self._messages["dataset_service"]
        # Few different ones, so that the same rows meet the same seed again: then the delta is the same.
        lines = rows.rows(ROWS, seed=1000 + self._uploads % 4)
        self._uploads += 1
        self.doing = "upload"
        body = "".join(line + "\n" for line in lines).encode()
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        created = self._call(self._datasets.CreateDataset, messages.CreateDatasetRequest(
            parent=self._parent, dataset=messages.Dataset(base_model=self._base_model), request_id=str(uuid.uuid4())))
        self._ledger.dataset_created(created.name)
        self.doing = f"upload of {created.name}"
        while True:
            status = self._call(self._datasets.GetUploadStatus, messages.GetUploadStatusRequest(name=created.name))
            if status.finished:
                break

            def parts(offset=status.committed_bytes):
                step = 4096
                for begin in range(offset, len(body), step):
                    yield messages.WriteDatasetRequest(name=created.name, write_offset=begin, data=body[begin:begin + step])
                yield messages.WriteDatasetRequest(name=created.name, write_offset=len(body), finish=True, digest=digest)

            try:
                self._datasets.WriteDataset(parts(), timeout=20, metadata=self._metadata)
            except grpc.RpcError as error:
                if self._abandon.is_set():
                    raise Stop from error
                if error.code() not in AGAIN and reason_of(error) not in UPLOAD_AGAIN:
                    raise
                time.sleep(0.05)
        self._ledger.dataset(created.name, digest)
        while True:
            dataset = self._call(self._datasets.GetDataset, messages.GetDatasetRequest(name=created.name))
            state = messages.Dataset.State.Name(dataset.state)
            if state == "READY":
                break
            if state == "INVALID":
                raise ValueError(f"{created.name} is {state}")
            time.sleep(0.05)
        self.own.append(created.name)

    def _delete_dataset(self, name):
        self.doing = f"deleting {name}"
        self._ledger.dataset_deleted(name)
        request = self._messages["dataset_service"].DeleteDatasetRequest(name=name)
        self._call(self._datasets.DeleteDataset, request, final=("DATASET_NOT_FOUND",))

    def _life_of_a_job(self):
        messages, job_messages = self._messages["fine_tuning_service"], self._messages["fine_tuning_job"]
        dataset, seed = self._draw.choice(self.own), self._draw.choice(SEEDS)
        asked = job_messages.FineTuningJob(
            base_model=self._base_model, training_dataset=dataset,
            hyperparameters=job_messages.Hyperparameters(epochs=2, batch_rows=4, lora_rank=4, seed=seed))
        created = self._call(self._jobs.CreateFineTuningJob, messages.CreateFineTuningJobRequest(
            parent=self._parent, fine_tuning_job=asked, request_id=str(uuid.uuid4())))
        self._ledger.job(created.name, dataset=dataset, seed=seed)
        self.doing = f"the life of {created.name}"
        whim = self._draw.random()
        if whim < 0.15:
            time.sleep(self._draw.uniform(0, 3))
            self._ledger.job(created.name, cancelled=True)
            self._call(self._jobs.CancelFineTuningJob, messages.CancelFineTuningJobRequest(name=created.name), final=("JOB_ENDED",))
        elif whim < 0.35:
            time.sleep(self._draw.uniform(0, 2))
            if self._call(self._jobs.PauseFineTuningJob, messages.PauseFineTuningJobRequest(name=created.name), final=("JOB_ENDED",)):
                time.sleep(self._draw.uniform(0, 1))
                self._resume(created.name)
        self._follow(created.name)
        if self._draw.random() < 0.15:
            self.doing = f"deleting {created.name}"
            self._ledger.job_deleted(created.name)
            self._call(self._jobs.DeleteFineTuningJob, messages.DeleteFineTuningJobRequest(name=created.name),
                       final=("JOB_NOT_FOUND",))

    def _resume(self, name):
        request = self._messages["fine_tuning_service"].ResumeFineTuningJobRequest(name=name)
        while True:
            try:
                return self._call(self._jobs.ResumeFineTuningJob, request, final=("JOB_ENDED",))
            except grpc.RpcError as error:
                if reason_of(error) != "JOB_PAUSING":
                    raise
                time.sleep(0.2)

    def _follow(self, name):
        """Watches a job to its end; every event comes once, in order."""
        messages = self._messages["fine_tuning_service"]
        seen = 0
        while True:
            if self._abandon.is_set():
                raise Stop
            try:
                request = messages.WatchFineTuningJobRequest(name=name, after_sequence=seen)
                for update in self._jobs.WatchFineTuningJob(request, timeout=20, metadata=self._metadata):
                    if update.HasField("event"):
                        if update.event.sequence != seen + 1:
                            self._ledger.problem(f"{name}: event {update.event.sequence} after {seen}")
                        seen = update.event.sequence
                        self._ledger.event(name, update.event)
            except grpc.RpcError as error:
                if error.code() not in AGAIN:
                    raise
                time.sleep(0.05)
            job = self._call(self._jobs.GetFineTuningJob, messages.GetFineTuningJobRequest(name=name))
            if self._state(job) in FINAL:
                break
            if self._state(job) == "PAUSED":
                self._resume(name)
        if self._state(job) == "FAILED":
            self._ledger.problem(f"{name} FAILED: {job.error.reason}: {job.error.message}")
        self._ledger.end(name, self._state(job), job.manifest_digest)
        if self._state(job) == "SUCCEEDED":
            self._download(name, job.manifest_digest)

    def _download(self, name, manifest_digest):
        messages = self._messages["delta_service"]
        manifest = self._call(self._deltas.GetDeltaManifest, messages.GetDeltaManifestRequest(name=f"{name}/delta"))
        for file in manifest.files:
            while True:
                if self._abandon.is_set():
                    raise Stop
                try:
                    request = messages.ReadDeltaRequest(name=f"{name}/delta", path=file.path)
                    data = b"".join(part.data for part in self._deltas.ReadDelta(request, timeout=20, metadata=self._metadata))
                    break
                except grpc.RpcError as error:
                    if error.code() not in AGAIN:
                        raise
                    time.sleep(0.05)
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            if digest != file.digest or (file.path == "manifest.json" and digest != manifest_digest):
                self._ledger.problem(f"{name}: {file.path} has the digest {digest}, not {file.digest}")
