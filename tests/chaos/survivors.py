# SPDX-License-Identifier: Apache-2.0
"""Servers that live while another one is dead: whether the service goes on."""

import time
import uuid

import grpc
import protos
from customers import AGAIN, channel_to
from world import MODEL

# In which a living server takes a change; and a dead one's leases end, another job ends, and it is known to be gone.
ANSWER_SECONDS, LEASE_END_SECONDS, JOB_SECONDS, GONE_SECONDS = 10, 30, 90, 60


def within(seconds, condition):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


class Survivors:
    """Thread safety: for the thread of `world`."""

    def __init__(self, world, ledger, tenant, key):
        self._world, self._ledger = world, ledger
        self._parent, self._metadata = f"tenants/{tenant}", (("authorization", f"Bearer {key}"),)
        self._messages = protos.load("ballast.v1.dataset_service_pb2")
        stub = protos.load("ballast.v1.dataset_service_pb2_grpc").DatasetServiceStub
        # Not by the network that is cut.
        self._datasets = {server.name: stub(channel_to([f"127.0.0.1:{server.port}"])) for server in world.bench.servers}

    def check(self, dead):
        """That each of the other servers takes a change, where the stores are there."""
        for name in self._world.servers:
            if name not in dead and not self._takes_a_change(name):
                self._ledger.problem(f"{name} took nothing for {ANSWER_SECONDS} s while these were dead: {', '.join(dead)}")

    def _takes_a_change(self, name):
        request = self._messages.CreateDatasetRequest(
            parent=self._parent, dataset=self._messages.Dataset(base_model=f"baseModels/{MODEL}"), request_id=str(uuid.uuid4()))
        deadline = time.monotonic() + ANSWER_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            try:
                created = self._datasets[name].CreateDataset(request, timeout=left, metadata=self._metadata)
            except grpc.RpcError as error:
                if error.code() not in AGAIN:
                    raise
                time.sleep(0.05)
                continue
            self._ledger.dataset_created(created.name)
            return True
        return False

    def know_it_is_gone(self):
        return within(GONE_SECONDS, lambda: len(self._world.query("SELECT id FROM servers")) < len(self._world.servers))

    def outlive(self, name):
        """Kills a server whose worker has a job and leaves it dead until it is known to be gone. Whether meanwhile its workers
        lost their leases and other jobs ended."""
        world = self._world
        own = [worker for worker, server in world.server_of.items() if server == name]
        held = {}

        def hold():
            held.update((job, lease) for job, lease in world.leases().items() if lease[0] in own)
            return held

        if own and not within(JOB_SECONDS, hold):
            self._ledger.problem(f"no worker of {name} got a job for {JOB_SECONDS} s")
            return False
        ended = len(self._ledger.ends)
        world.kill(name)
        self.check({name})

        def freed():
            now = world.leases()
            return not any(now.get(job) == lease for job, lease in held.items())

        wanted = {
            "the leases of its workers did not end": within(LEASE_END_SECONDS, freed),
            "no job ended": within(JOB_SECONDS, lambda: len(self._ledger.ends) > ended),
            "it was taken for alive": self.know_it_is_gone(),
        }
        for missed in (what for what, was_seen in wanted.items() if not was_seen):
            self._ledger.problem(f"{name} was dead, and {missed}")
        world.restart(name)
        return all(wanted.values())
