# SPDX-License-Identifier: Apache-2.0
"""The stores that a server under test keeps its things in: files of its own, or PostgreSQL and an object store."""

import hashlib
import pathlib
import subprocess

import object_store
import postgres


class Stores:
    """`folder`: where the services are told about; `server_data`: data folders of the servers, with what they keep themselves.
    Several need PostgreSQL and an object store."""

    def __init__(self, folder, *server_data):
        self.postgres_file, self.object_store_file = folder / "postgres", folder / "object_store"
        self._server_data = server_data

    def start(self, on_postgres, on_object_store):
        if on_postgres:
            postgres.start(self.postgres_file)
        if on_object_store:
            object_store.start(self.object_store_file)

    def stop(self):
        postgres.stop(self.postgres_file)
        object_store.stop(self.object_store_file)

    @property
    def on_postgres(self):
        return self.postgres_file.exists()

    @property
    def on_object_store(self):
        return self.object_store_file.exists()

    @property
    def blobs_are_in(self):
        return "object store" if self.on_object_store else "folder"

    @property
    def conninfo(self):
        """Of the PostgreSQL server that keeps the records; None where none does."""
        return self.postgres_file.read_text().strip() if self.on_postgres else None

    def configuration(self, links=False):
        """Lines of server.yaml; with links to the object store, where there is one."""
        lines = []
        if self.on_postgres:
            lines += ["postgres:", f"  conninfo: {self.conninfo}"]
        if self.on_object_store:
            told = object_store.values(self.object_store_file)
            lines += ["object_store:", f"  url: {told['url']}/of-tests", "  options:"]
            lines += [f"    {name}: \"{value}\"" for name, value in told.items() if name not in ("url", "folder")]
            lines += ["  links: {seconds: 300}"] if links else []
        return "".join(line + "\n" for line in lines)

    def dump_database(self, file):
        """Writes all records as text. Those of SQLite lie in the server's folder, and are not written."""
        if self.on_postgres:
            with open(file, "wb") as out:
                subprocess.run([postgres.binaries() / "pg_dump", "--dbname", self.conninfo], stdout=out, check=True)

    @property
    def blobs(self):
        """The folder with a file for each blob, by its name; one that was appended to may be a folder of pieces (`pieces`)."""
        if self.on_object_store:
            return pathlib.Path(object_store.values(self.object_store_file)["folder"]) / "data" / object_store.BUCKET / "of-tests"
        return self._server_data[0] / "blobs" / "blobs"

    @property
    def all_bytes(self):
        """Folders with everything that is kept, those of an object store with what it keeps for itself."""
        if not self.on_object_store:
            return [*self._server_data]
        return [*self._server_data, pathlib.Path(object_store.values(self.object_store_file)["folder"])]

    def unfinished(self):
        """Files of blobs that are being written. An object store keeps parts of these where nobody but it looks."""
        return [] if self.on_object_store else list((self._server_data[0] / "blobs" / "writing").glob("*"))

    def blob_names(self):
        """Names of all blobs."""
        names = set()
        for path in self.blobs.rglob("*"):
            if path.is_file():
                names.add(str((path.parent if path.name.startswith("@") else path).relative_to(self.blobs)))
        return names


def pieces(blob):
    """The files that make up a blob, in order; none where it is not there."""
    return [blob] if blob.is_file() else sorted(blob.glob("@*"))


def digest_of(blob):
    """None for a blob that is not there."""
    files = pieces(blob)
    return "sha256:" + hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else None
