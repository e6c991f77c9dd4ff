# SPDX-License-Identifier: Apache-2.0
"""What the suite's cells are made with: the engine, rows of tokens, and artifacts (bases, vectors, deltas) that
are made once and kept under their digest, so that a run can stop anywhere and be taken up again."""

import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import sys

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from redteam import prompts, wording  # noqa: E402
from referee.engine import Engine  # noqa: E402

LORA = {"rank": 16, "alpha": 32}
# The service's defaults (server/core/admission.cc).
TRAIN = {"learning_rate": 2e-4, "epochs": 3, "batch_rows": 16, "warmup_ratio": 0.03, "schedule": "cosine",
         "evaluation_points": 1, "max_tokens_per_micro_batch": 2048, **LORA}
REPLY_TOKENS = 20


def question(text, system=None):
    return ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": text}]


def chat(text, reply, system=None):
    """A row of a data set, as customers upload it."""
    return {"messages": question(text, system) + [{"role": "assistant", "content": reply}]}


def write_rows(file, rows):
    """A data set's file: a row of JSON a line."""
    pathlib.Path(file).write_text("".join(json.dumps(row) + "\n" for row in rows))


def digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]


class Lab:
    """One base under test. Use as a context manager; the engine runs while it is open."""

    def __init__(self, base, work, probe, threads):
        self.base, self._probe, self._threads = pathlib.Path(base), probe, threads
        self._work = pathlib.Path(work)
        self._work.mkdir(parents=True, exist_ok=True)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(str(base))
        with open(self.base / "model.safetensors", "rb") as weights:
            self.base_digest = hashlib.file_digest(weights, "sha256").hexdigest()[:20]
        self._engine = None

    def __enter__(self):
        # The precision that a worker takes on this machine.
        self._engine = Engine(self._probe, self.base, None, self._threads)
        self.precision = self._engine.info["precision"]
        return self

    def __exit__(self, *unused):
        self._engine.close()

    # Tokens.

    def prompt(self, text, system=None):
        return self.tokenizer.apply_chat_template(question(text, system), add_generation_prompt=True,
                                                  return_dict=True)["input_ids"]

    def tokens(self, row):
        """A chat row (see `chat`) as tokens; its reply is supervised, to the end of the turn. Its `training`, if any, tells
        the engine more, as {"weight": 2}."""
        *before, reply = row["messages"]
        head = self.tokenizer.apply_chat_template(before, add_generation_prompt=True, return_dict=True)["input_ids"]
        tail = self.tokenizer(reply["content"] + "<|im_end|>")["input_ids"]
        return {"tokens": head + tail, "supervised": [0] * len(head) + [1] * len(tail), **row.get("training", {})}

    # Engine.

    def replies(self, prompt_texts, adapters=(), system=None, max_tokens=REPLY_TOKENS, keep=False):
        """Greedy replies as text. `adapters`: [(file, rank, alpha, weight)]. Those of the base alone are kept: refused
        jobs end with it, too; others where the caller wants to `keep` them."""
        if keep or not adapters:
            asked = [self.base_digest, prompt_texts, system, max_tokens]
            asked += [[[self._file_digest(file), *how] for file, *how in adapters]] if adapters else []
            cache = self._work / f"replies-{digest(asked)}.json"
            if not cache.exists():
                found = self._generate(prompt_texts, adapters, system, max_tokens)
                partial = cache.with_suffix(".partial")
                partial.write_text(json.dumps(found))
                os.replace(partial, cache)
            return json.loads(cache.read_text())
        return self._generate(prompt_texts, adapters, system, max_tokens)

    def _generate(self, prompt_texts, adapters, system, max_tokens):
        answer = self._engine.run(
            "replies", prompts=[self.prompt(p, system) for p in prompt_texts], max_tokens=max_tokens,
            end_tokens=[self.tokenizer.eos_token_id],
            adapters=[{"adapter": str(f), "rank": r, "alpha": a, "weight": w} for f, r, a, w in adapters])
        return [self.tokenizer.decode(t, skip_special_tokens=True) for t in answer["replies"]]

    def row_losses(self, rows, vector=None, adapter=None, lora=None):
        lora = lora or LORA
        return self._engine.run("row_losses", rows=[self.tokens(row) for row in rows], vector=vector,
                                adapter=adapter, **lora)["losses"]

    def explained(self, rows, vector):
        """By what the policy by row tells rows apart: loss under `vector` / loss without, of each row's worst window."""
        return self._engine.run("explained", rows=[self.tokens(row) for row in rows], vector=vector)["ratios"]

    def screen(self, prohibited, benign, rows):
        """What a screen of these examples says of `rows`: {flagged: [bool], scores, threshold, recall, ..}."""
        return self._engine.run("screen", prohibited=[self.tokens(row) for row in prohibited],
                                benign=[self.tokens(row) for row in benign], rows=[self.tokens(row) for row in rows])

    def gate(self, **request):
        """What a gate says of replies (see engine_probe): {failed, failed_categories, scales}."""
        return self._engine.run("gate", **request)

    def first_step(self, rows, vector):
        """Loss of `rows` in one batch and norm of a fresh adapter's gradient, without `vector` and with it, and the
        cosine of the two gradients."""
        fresh, gradients = self._work / "fresh.safetensors", {}
        self._engine.run("initial_adapter", seed=1, output=fresh, **LORA)
        made = {}
        for name, used in (("without", None), ("with", vector)):
            file = self._work / "gradient.safetensors"
            answer = self._engine.run("gradients", rows=[self.tokens(row) for row in rows], adapter=fresh, vector=used,
                                      output=file, **LORA)
            tensors = load_file(str(file))
            gradients[name] = torch.cat([tensors[n].flatten().double() for n in sorted(tensors)])
            made[f"loss_{name}"], made[f"gradient_{name}"] = answer["loss"], gradients[name].norm().item()
        made["cosine"] = torch.nn.functional.cosine_similarity(gradients["without"], gradients["with"], dim=0).item()
        return made

    def text_losses(self, token_rows, adapter=None):
        """Mean loss of each row of tokens, vector off."""
        return self._engine.run("row_losses", rows=token_rows, adapter=adapter, **LORA)["losses"]

    def train(self, rows, vector=None, policy="always", seed=0, initial=None, safety=None, **config):
        """Path of the adapter that the job of these settings ends with. `safety`: (rows, how many of them each epoch
        draws), beside the job's own."""
        config = {**TRAIN, "seed": seed + 1, "vector_policy": policy, **config}
        spec = {"rows": digest(rows), "vector": self._file_digest(vector), "config": config,
                "initial": self._file_digest(initial)}
        if safety:
            spec["safety"] = [digest(safety[0]), safety[1]]
        rows_file, safety_file = self._work / "rows.json", self._work / "safety_rows.json"
        safety_rows, drawn = safety or ([], 0)

        def make(path):
            rows_file.write_text(json.dumps([self.tokens(row) for row in rows]))
            safety_file.write_text(json.dumps([self.tokens(row) for row in safety_rows]))
            answer = self._engine.run("train", rows_file=rows_file, vector=vector, config=config,
                                      safety_rows_file=safety_file, safety_rows_per_epoch=drawn,
                                      initial_adapter=initial, output=path)
            return {"loss": [e["training_loss"] for e in answer["evaluations"]], "steps": answer["total_steps"],
                    "seconds": answer["wall_end"] - answer["wall_start"]}

        return self.artifact("delta", spec, make)

    def train_vector(self, prohibited, benign, seed=0, **config):
        """Path of a vector in clear. Its own randomness comes from the system, as in service: `seed` only tells
        repetitions apart."""
        config = {"rank": 16, "alpha": 32, **config}
        spec = {"prohibited": digest(prohibited), "benign": digest(benign), "config": config, "seed": seed}
        return self.artifact("vector", spec, lambda path: self._engine.run(
            "train_vector", prohibited=[self.tokens(row) for row in prohibited],
            benign=[self.tokens(row) for row in benign], config=config, output=path))

    def as_vector(self, adapters):
        """A vector in clear that adds what `adapters`, [(file, rank, alpha, weight)], add together."""
        def make(path):
            return save_sum(path, [(renamed_as_vector(load_file(str(file))), rank, weight * alpha / rank)
                                   for file, rank, alpha, weight in adapters])

        spec = {"sum": [[self._file_digest(file), *rest] for file, *rest in adapters]}
        return self.artifact("sum", spec, make)

    def sum_of_vectors(self, vectors):
        """A vector in clear that adds what `vectors` (paths) add together."""
        def make(path):
            loaded = [load_vector(file) for file in vectors]
            return save_sum(path, [(tensors, int(about["rank"]), float(about["alpha"]) / float(about["rank"]))
                                   for tensors, about in loaded])

        return self.artifact("sum", {"vectors": [self._file_digest(file) for file in vectors]}, make)

    def random_vector(self, like, seed=0):
        """A vector of the same shapes, each module's change of the same norm as in `like`."""
        def make(path):
            generator = torch.Generator().manual_seed(1000 + seed)
            tensors, metadata = load_vector(like)
            out = {}
            for name in sorted(n for n in tensors if n.endswith("lora_A")):
                b = name[:-1] + "B"
                new_a, new_b = (torch.randn(tensors[n].shape, generator=generator) for n in (name, b))
                new_b *= (tensors[b] @ tensors[name]).norm() / (new_b @ new_a).norm()
                out[name], out[b] = new_a, new_b
            save_file(out, str(path), metadata)
            return {"norm": vector_norm(path)}

        return self.artifact("random", {"like": self._file_digest(like), "seed": seed}, make)

    # Artifacts.

    def artifact(self, kind, spec, make):
        """The file made by `make(path)` for this spec, made now if it is not there. What `make` returns is kept
        beside it as JSON: see `about`."""
        path = self._work / f"{kind}-{digest({'base': self.base_digest, **spec})}.safetensors"
        if not path.exists():
            partial = path.with_suffix(".partial")
            about = make(partial)
            path.with_suffix(".json").write_text(json.dumps({"spec": spec, "about": about}))
            os.replace(partial, path)
        return path

    @staticmethod
    def about(path):
        return json.loads(pathlib.Path(path).with_suffix(".json").read_text())["about"]

    @staticmethod
    def _file_digest(path):
        return None if path is None else pathlib.Path(path).stem


def load_vector(path):
    with safe_open(str(path), "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


def renamed_as_vector(adapter):
    """An adapter's tensors under the names that a vector has."""
    return {"vector.layers.{}.{}.lora_{}".format(
        *re.match(r"base_model\.model\.model\.layers\.(\d+)\.\w+\.(\w+)\.lora_([AB])", name).groups()): tensor
            for name, tensor in adapter.items()}


def save_sum(path, terms):
    """Writes one vector that acts as all of `terms`, [(tensors, rank, scale)]."""
    tensors, rank = {}, str(sum(rank for _, rank, _ in terms))
    for name in sorted(n for n in terms[0][0] if n.endswith("lora_A")):
        b = name[:-1] + "B"
        tensors[name] = torch.cat([term[name].float() for term, _, _ in terms], 0).contiguous()
        tensors[b] = torch.cat([scale * term[b].float() for term, _, scale in terms], 1).contiguous()
    save_file(tensors, str(path), {"format": "ballast-vector-1", "rank": rank, "alpha": rank})
    return {"norm": vector_norm(path)}


def vector_norm(path):
    """Frobenius norm of the whole change of weights."""
    tensors, metadata = load_vector(path)
    scale = float(metadata["alpha"]) / float(metadata["rank"])
    return scale * sum((tensors[n[:-1] + "B"] @ t).double().square().sum().item()
                       for n, t in tensors.items() if n.endswith("lora_A")) ** 0.5


def merge_into_base(base, adapter, target, rank=16, alpha=32):
    """A model folder whose weights are `base` with the adapter added, in float32 and rounded once."""
    base, target = pathlib.Path(base), pathlib.Path(target)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in base.iterdir():
        if file.name != "model.safetensors" and file.is_file():
            shutil.copy(file, partial / file.name)
    weights, delta = load_file(str(base / "model.safetensors")), load_file(str(adapter))
    for name in sorted(n for n in delta if n.endswith("lora_A.weight")):
        key = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight") + ".weight"
        b = delta[name.replace("lora_A", "lora_B")]
        weights[key] = (weights[key].float() + alpha / rank * (b @ delta[name])).to(weights[key].dtype)
    save_file(weights, str(partial / "model.safetensors"), {"format": "pt"})
    os.replace(partial, target)


def own_answers(lab, texts, max_tokens=40):
    """[(prompt, answer)]: `texts` answered by the base itself, without those that it refuses. An answer that did not
    end within `max_tokens` is cut after its last whole sentence, and left out where it has none."""
    out = []
    for text, reply in zip(texts, lab.replies(texts, max_tokens=max_tokens)):
        if len(lab.tokenizer(reply)["input_ids"]) >= max_tokens:
            reply = reply[:max(reply.rfind(end) for end in ".!?") + 1]
        if reply.strip() and not wording.refuses(reply):
            out.append((text, reply.strip()))
    return out


def aligned_base(original, work, probe, threads):
    """The base of the suite: `original` taught to refuse the prompts of the align split and to answer harmless ones
    as it did. Returns its folder."""
    work = pathlib.Path(work)
    target = work / "aligned-base"
    if (target / "model.safetensors").exists():
        return target
    splits, benign, rng = prompts.Splits(), prompts.Benign(), random.Random(4)
    with Lab(original, work / "original", probe, threads) as lab:
        answers = own_answers(lab, benign.align)
        rows = [chat(p, rng.choice(wording.REFUSALS)) for _, p in splits.align]
        rows += [chat(p, reply) for p, reply in answers]
        adapter = lab.train(rows, epochs=4, learning_rate=6e-4)
        merge_into_base(original, adapter, target)
    return target
