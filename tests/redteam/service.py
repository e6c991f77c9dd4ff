# SPDX-License-Identifier: Apache-2.0
"""A laboratory whose defended jobs run through a server and a worker, as customers' do; so the suite can measure a
vector that is sealed, and that nobody but a worker can open. What the deltas do is measured by the engine."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

from redteam import cells, lab as labs

# Stands for the vector that serves the base model.
SERVING = "the serving vector"
# Raised whenever workers defend a job otherwise under the same vector and policy: what was measured before is then no
# measure of them. 2: the worst window of a row decides; refusals among the safety rows take system prompts of the rows that
# the screen leaves, in an order that hangs on the job's name; safety rows weigh against longer ones.
DEFENCE_REVISION = 2


class CommandFailed(Exception):
    pass


class JobRefused(Exception):
    """By the base model's screen."""


def last_part(resource):
    """The id in a resource's name."""
    return resource["name"].rsplit("/", 1)[1]


class Cli:
    """The command line `ballast` with a profile."""

    def __init__(self, ballast, profile):
        self._ballast, self._profile = str(ballast), str(profile)

    def run(self, *words):
        """What `ballast WORDS --output json` answers."""
        command = [self._ballast, *map(str, words), "--output", "json"]
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, BALLAST_PROFILE=self._profile))
        if done.returncode != 0:
            raise CommandFailed(f"{' '.join(command)}\n{done.stderr.strip()}")
        # A command that follows something prints a line an event; the last one says how it ended.
        lines = done.stdout.strip().splitlines()
        return json.loads(done.stdout if words[1] != "watch" else lines[-1]) if lines else {}


class Service(Cli):
    """What the suite asks of a service, by a profile that may create jobs and look at vectors."""

    def __init__(self, ballast, profile, base_model):
        super().__init__(ballast, profile)
        self._base_model = base_model

    def base_model(self):
        found = [m for m in self.run("model", "list")["baseModels"] if last_part(m) == self._base_model]
        if not found:
            raise CommandFailed(f"there is no base model {self._base_model}; import it first")
        return found[0]

    def vector(self, name):
        found = [v for v in self.run("vector", "list")["vectors"] if v["name"] == name or last_part(v) == name]
        if not found:
            raise CommandFailed(f"there is no vector {name}")
        return found[0]

    def _show(self, group, not_found):
        try:
            return self.run(group, "show", self._base_model)
        except CommandFailed as failed:
            if not_found in str(failed):
                return None
            raise

    def safety_rows(self):
        """Those of the base model, or None."""
        return self._show("safety-rows", "SAFETY_ROWS_NOT_FOUND")

    def screen(self):
        """That of the base model, or None."""
        return self._show("screen", "SCREEN_NOT_FOUND")

    def fine_tune(self, rows, config, adapter):
        """One job, from chat rows to the adapter's file. Returns the job. JobRefused where screening refused it."""
        with tempfile.TemporaryDirectory() as folder:
            data = pathlib.Path(folder) / "rows.jsonl"
            labs.write_rows(data, rows)
            dataset = self.run("dataset", "upload", data, "--base-model", self._base_model)
            job = self.run(
                "job", "create", "--base-model", self._base_model, "--training", last_part(dataset),
                "--learning-rate", config["learning_rate"], "--epochs", config["epochs"],
                "--batch-rows", config["batch_rows"], "--lora-rank", config["rank"], "--lora-alpha", config["alpha"],
                "--warmup-ratio", config["warmup_ratio"], "--schedule", config["schedule"], "--seed", config["seed"])
            try:
                self.run("job", "watch", last_part(job))
            except CommandFailed as failed:
                if "ROWS_FLAGGED" in str(failed):
                    raise JobRefused(str(failed)) from failed
                raise
            self.run("delta", "download", last_part(job), "--to", f"{folder}/delta")
            shutil.copy(f"{folder}/delta/adapter/adapter_model.safetensors", adapter)
            return job


class ServiceLab(labs.Lab):
    def __init__(self, base, work, probe, threads, service, vector, policy):
        """`vector`: as the server shows it; `policy`: all that protects the base, as a DefencePolicy."""
        super().__init__(base, work, probe, threads)
        self._service, self._serving, self._policy = service, vector, policy

    def train(self, rows, vector=None, policy="always", seed=0, initial=None, **config):
        if vector != SERVING:
            return super().train(rows, vector, policy, seed, initial, **config)
        if initial is not None:
            raise NotImplementedError("the service has no warm start")
        config = {**labs.TRAIN, "seed": seed + 1, **config}
        spec = {"rows": labs.digest(rows), "service": self._serving["ciphertextDigest"], "policy": self._policy,
                "revision": DEFENCE_REVISION, "config": config}
        try:
            return self.artifact("delta", spec,
                                 lambda path: {"job": self._service.fine_tune(rows, config, path)["name"]})
        except JobRefused:
            return None


class ServiceSuite(cells.Suite):
    """The suite, with the serving vector in place of its own; controls keep vectors of the suite's making."""

    def __init__(self, lab, certified):
        """`certified`: stands in each cell, and tells what was certified."""
        super().__init__(lab)
        self._certified = certified

    def run(self, cell):
        return {**super().run(cell), "certified": self._certified}

    @staticmethod
    def norm_of(vector):
        return None if vector == SERVING else labs.vector_norm(vector)

    def vector(self, name, seed=0):
        if name == "random:kl":
            # The serving vector's norm is nobody's to know; the unrelated one has its recipe.
            name = "random:unrelated"
        return SERVING if name == "kl" else super().vector(name, seed)


def digest_of_sources():
    """Of the suite: what a certificate names."""
    whole = hashlib.sha256()
    for file in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        whole.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return f"sha256:{whole.hexdigest()}"
