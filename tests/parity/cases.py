# SPDX-License-Identifier: Apache-2.0
"""The comparisons, each on one model: the engine on one side, transformers and PEFT on the other."""

import dataclasses
import pathlib
import shutil

import torch
from referee import model as referee
from referee import rows as token_rows
from referee.engine import Engine
from safetensors.torch import load_file

VECTOR_RANK, VECTOR_ALPHA = 8, 16


@dataclasses.dataclass
class Subject:
    """One model under comparison and the rows it is compared on."""

    name: str
    folder: pathlib.Path
    rank: int
    alpha: int
    gradient_rows: list      # several documents of very different lengths
    training_rows: list      # the rows of the 50 steps
    validation_rows: list
    config: dict             # of the 50 steps
    work: pathlib.Path       # for files
    adapter_scale: float = 0.02


class Comparison:
    """A subject loaded on both sides in one precision. The referee computes in float32 on the same weights
    unless a case says otherwise."""

    def __init__(self, subject, report, probe, precision, threads):
        self.subject, self.report, self.precision = subject, report, precision
        self.tag = {"float32": "fp32", "bfloat16": "bf16"}[precision]
        self.case = f"{subject.name} {self.tag}"
        self.engine = Engine(probe, subject.folder, precision, threads)
        self.stored = torch.float32 if precision == "float32" else torch.bfloat16
        base = referee.load_base(subject.folder, torch.float32)
        if precision == "bfloat16":  # the same rounded weights
            base = base.to(torch.bfloat16).to(torch.float32)
        self.model = referee.add_lora(base, subject.rank, subject.alpha)
        self.adapter = referee.random_adapter(self.model, seed=11, scale=subject.adapter_scale)
        self.adapter_file = subject.work / "adapter.safetensors"
        referee.save_adapter(self.adapter_file, self.adapter)
        vector_shapes = referee.add_lora(referee.load_base(subject.folder, torch.float32), VECTOR_RANK, VECTOR_ALPHA)
        self.vector = referee.random_adapter(vector_shapes, seed=12, scale=subject.adapter_scale)
        self.vector_file = subject.work / "vector.safetensors"
        referee.save_vector(self.vector_file, self.vector, VECTOR_RANK, VECTOR_ALPHA)

    def close(self):
        self.engine.close()

    def lora(self):
        return {"rank": self.subject.rank, "alpha": self.subject.alpha}

    # --- forward and backward -------------------------------------------------------------------------

    def logits(self):
        tokens = max(self.subject.gradient_rows, key=lambda row: len(row["tokens"]))["tokens"]
        for what, file in (("base", None), ("adapter", self.adapter_file)):
            tensors = self.adapter if file else {name: t * 0 for name, t in self.adapter.items()}
            referee.set_adapter(self.model, tensors)
            out = self.subject.work / "logits.safetensors"
            self.engine.run("logits", tokens=tokens, adapter=file, output=out, **self.lora())
            ours, theirs = load_file(str(out))["logits"], referee.logits(self.model, tokens)
            error = (ours - theirs).abs().max().item() / theirs.abs().max().item()
            self.report.at_most(f"{self.case} logits, {what}", f"logits_{self.tag}_max_relative_error", error)

    def gradients(self):
        """Several documents packed by the engine, one by one through transformers."""
        referee.set_adapter(self.model, self.adapter)
        self._gradients("packed documents", self.subject.gradient_rows, self.model, vector=None)
        weighted = [dict(row, weight=w) for row, w in zip(self.subject.gradient_rows, (0.5, 2.0, 0.0, 1.0, 3.0))]
        referee.set_adapter(self.model, self.adapter)
        self._gradients("weighted rows", weighted, self.model, vector=None)

    def vector_gradients(self):
        """The base with the vector merged: by the engine, and by PEFT's merge_and_unload."""
        model = referee.add_lora(self._merged(), self.subject.rank, self.subject.alpha)
        referee.set_adapter(model, self.adapter)
        self._gradients("vector merged", self.subject.gradient_rows, model, vector=self.vector_file)

    def _merged(self):
        return referee.merged(self.subject.folder, self.vector, VECTOR_RANK, VECTOR_ALPHA, rounded_to=self.stored)

    def _gradients(self, what, rows, model, vector):
        out = self.subject.work / "gradients.safetensors"
        answer = self.engine.run(
            "gradients", rows=rows, adapter=self.adapter_file, vector=vector, output=out, **self.lora()
        )
        loss, theirs = referee.gradients(model, rows)
        case = f"{self.case} {what}"
        self.report.at_most(case, f"loss_{self.tag}_relative_error", abs(answer["loss"] - loss) / loss)
        self.report.tensors(case, f"gradient_{self.tag}", load_file(str(out)), theirs)

    # --- training -------------------------------------------------------------------------------------

    def plan(self, config, rows):
        """The rows of every micro-batch of every step, as the engine will visit them."""
        steps = self.engine.run(
            "plan",
            lengths=[len(row["tokens"]) for row in rows],
            **{k: config[k] for k in ("seed", "batch_rows", "max_tokens_per_micro_batch", "epochs")},
        )["steps"]
        return [[[rows[i] for i in batch] for batch in step] for step in steps]

    def _start(self, seed):
        path = self.subject.work / "initial.safetensors"
        self.engine.run("initial_adapter", seed=seed, output=path, **self.lora())
        return path, referee.load_adapter(path)

    def _engine_losses(self, config, initial, **fields):
        answer = self.engine.run(
            "train",
            config=dict(config, **self.lora()),
            rows=self.subject.training_rows,
            validation_rows=self.subject.validation_rows,
            initial_adapter=initial,
            output=self.subject.work / "trained.safetensors",
            **fields,
        )
        return answer, {e["step"]: e["validation_loss"] for e in answer["evaluations"]}

    def training_fp32(self, with_vector=False):
        """Same adapter, same rows in the same order: the losses after every step. With the vector, the
        referee trains over the merged base and evaluates, as the engine does, without it."""
        subject = self.subject
        plan = self.plan(subject.config, subject.training_rows)
        config = dict(subject.config, evaluation_points=len(plan))
        initial_file, initial = self._start(config["seed"])
        fields = {"vector": self.vector_file} if with_vector else {"folder": subject.work / "adapter"}
        if not with_vector:
            shutil.rmtree(subject.work / "adapter", ignore_errors=True)
        answer, ours = self._engine_losses(config, initial_file, **fields)
        case = f"{self.case} {len(plan)} steps" + (", vector merged" if with_vector else "")
        self.report.true(case, "every step is evaluated", sorted(ours)[-len(plan):] == list(range(1, len(plan) + 1)))

        trained = referee.add_lora(self._merged(), subject.rank, subject.alpha) if with_vector else self.model
        referee.set_adapter(trained, initial)
        referee.set_adapter(self.model, initial)
        before = referee.evaluate(self.model, subject.validation_rows)
        trainer = referee.Trainer(trained, config, len(plan))
        worst, worst_step, theirs = 0.0, 0, before
        for index, micro_batches in enumerate(plan):
            trainer.step(micro_batches)
            if with_vector:
                referee.set_adapter(self.model, referee.get_adapter(trained))
            theirs = referee.evaluate(self.model, subject.validation_rows)
            error = abs(ours[index + 1] - theirs) / theirs
            if error > worst:
                worst, worst_step = error, index + 1
        self.report.at_most(case, "training_fp32_loss_relative_error", worst)
        print(f"       largest at step {worst_step}; loss {before:.4f} -> {theirs:.4f}")
        if not with_vector:
            self.report.at_least(case, "training_loss_fall", (before - theirs) / before)

    def training_bf16(self, seed):
        """Both sides on bf16 weights with float32 adapters; only the end is compared."""
        subject = self.subject
        config = dict(subject.config, evaluation_points=1, seed=seed)
        plan = self.plan(config, subject.training_rows)
        initial_file, initial = self._start(seed)
        _, ours = self._engine_losses(config, initial_file)
        model = referee.add_lora(
            referee.load_base(subject.folder, torch.bfloat16), subject.rank, subject.alpha
        )
        referee.set_adapter(model, initial)
        before = referee.evaluate(model, subject.validation_rows)
        trainer = referee.Trainer(model, config, len(plan))
        for micro_batches in plan:
            trainer.step(micro_batches)
        theirs = referee.evaluate(model, subject.validation_rows)
        case = f"{self.case} {len(plan)} steps, seed {seed}"
        self.report.at_most(case, "training_bf16_loss_relative_error", abs(ours[len(plan)] - theirs) / theirs)
        print(f"       loss {before:.4f} -> {theirs:.4f} (engine {ours[len(plan)]:.4f})")

    # --- what leaves the engine -----------------------------------------------------------------------

    def delivered_adapter(self):
        """The folder that training_fp32 wrote: PEFT loads it, its logits are the engine's, not the base's."""
        subject = self.subject
        tokens = max(subject.validation_rows, key=lambda row: len(row["tokens"]))["tokens"]
        out = subject.work / "logits.safetensors"
        self.engine.run("logits", tokens=tokens, adapter=subject.work / "trained.safetensors", output=out, **self.lora())
        ours = load_file(str(out))["logits"]
        base = referee.load_base(subject.folder, torch.float32)
        plain = referee.logits(base, tokens)
        loaded = referee.peft.PeftModel.from_pretrained(base, str(subject.work / "adapter")).eval()
        theirs = referee.logits(loaded, tokens)
        scale = theirs.abs().max().item()
        case = f"{self.case} delivered adapter in PEFT"
        self.report.at_most(case, f"logits_{self.tag}_max_relative_error", (ours - theirs).abs().max().item() / scale)
        self.report.at_least(case, "adapter_changes_logits", (theirs - plain).abs().max().item() / scale)

    def greedy_reply(self, prompt, count):
        """The engine's greedy tokens are those of transformers' generate, adapter on."""
        referee.set_adapter(self.model, self.adapter)
        with torch.no_grad():
            generated = self.model.generate(
                input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0,
            )[0, len(prompt):].tolist()
        ours = self.engine.run(
            "sample", prompt=prompt, end_tokens=[], max_tokens=count, adapter=self.adapter_file, **self.lora()
        )["tokens"]
        self.report.true(f"{self.case} greedy reply", f"same {count} tokens", ours == generated)


def gradient_rows_of(vocabulary, seed):
    """Documents of very different lengths, one with its first token marked supervised (it has nothing to be
    predicted from), one that ends unsupervised."""
    rows = token_rows.random_rows(vocabulary, [130, 2, 67, 33, 300], 0.5, seed)
    rows[3]["supervised"][0] = 1
    rows[2]["supervised"][-9:] = [0] * 9
    return rows
