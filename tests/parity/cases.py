# SPDX-License-Identifier: Apache-2.0
"""The comparisons, each on one model: the engine on one side, transformers and PEFT on the other."""

import dataclasses
import pathlib
import shutil

import report as reports
import torch
from referee import model as referee
from referee import rows as token_rows
from referee.engine import Engine
from safetensors.torch import load_file

VECTOR_RANK, VECTOR_ALPHA = 8, 16
END_TOKEN = 2  # of the tiny models and of SmolLM2


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
    # The bf16 comparison looks at the end only, so it can afford rows that are not seen again and again:
    # on few rows 50 steps amplify any rounding.
    bf16_training_rows: list = dataclasses.field(default_factory=list)
    bf16_validation_rows: list = dataclasses.field(default_factory=list)
    bf16_config: dict = dataclasses.field(default_factory=dict)


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
        # The referee in the engine's own precision, to tell rounding from mistakes.
        self.rounded = None
        if precision == "bfloat16":
            self.rounded = referee.add_lora(
                referee.load_base(subject.folder, torch.bfloat16), subject.rank, subject.alpha)
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
            case = f"{self.case} logits, {what}"
            if self.rounded is None:
                self.report.at_most(case, "logits_fp32_max_relative_error", reports.max_relative_error(ours, theirs))
                continue
            referee.set_adapter(self.rounded, tensors)
            self._against_rounded(case, "logits", {"": ours}, {"": referee.logits(self.rounded, tokens)}, {"": theirs})

    def row_features(self):
        """What screening reads of rows: packed by the engine, one by one through transformers."""
        referee.set_adapter(self.model, {name: t * 0 for name, t in self.adapter.items()})
        rows = self.subject.gradient_rows
        ours = torch.tensor(self.engine.run("row_features", rows=rows)["features"])
        theirs = torch.stack([referee.row_features(self.model, row) for row in rows])
        self.report.at_most(f"{self.case} row features", "row_features_fp32_max_relative_error",
                            reports.max_relative_error(ours, theirs))

    def gradients(self):
        """Several documents packed by the engine, one by one through transformers."""
        referee.set_adapter(self.model, self.adapter)
        rows = self.subject.gradient_rows
        ours, theirs = self._gradients("packed documents", rows, self.model, vector=None)
        if self.rounded is not None:
            referee.set_adapter(self.rounded, self.adapter)
            rounded = referee.gradients(self.rounded, rows)[1]
            self._against_rounded(f"{self.case} packed documents", "gradient", ours, rounded, theirs)

    def _against_rounded(self, case, prefix, ours, rounded, exact):
        """bf16 costs accuracy on either side: the engine must not lose much more of it than transformers."""
        distance = lambda a: sum((a[n] - exact[n]).double().square().sum().item() for n in exact) ** 0.5  # noqa: E731
        self.report.at_most(case, f"{prefix}_bf16_error_over_transformers", distance(ours) / distance(rounded))

    def weighted_gradients(self):
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
        ours = load_file(str(out))
        self.report.tensors(case, f"gradient_{self.tag}", ours, theirs)
        return ours, theirs

    def controls(self):
        """The comparison notices what it is there for: an adapter scaled 1 % too large, documents that
        attend to each other, a vector that was left out."""
        rows = self.subject.gradient_rows[:3]  # together within the context
        referee.set_adapter(self.model, self.adapter)
        _, theirs = referee.gradients(self.model, rows)
        joined = {key: sum((row[key] for row in rows), []) for key in ("tokens", "supervised")}
        wrong_scale = dict(self.lora(), alpha=self.subject.alpha * 1.01)
        merged = referee.add_lora(self._merged(), self.subject.rank, self.subject.alpha)
        referee.set_adapter(merged, self.adapter)
        _, with_vector = referee.gradients(merged, rows)
        for what, sent, lora, expected in (
            ("a wrong scale", rows, wrong_scale, theirs),
            ("documents run together", [dict(joined, weight=1.0)], self.lora(), theirs),
            ("a vector left out", rows, self.lora(), with_vector),
        ):
            out = self.subject.work / "gradients.safetensors"
            self.engine.run("gradients", rows=sent, adapter=self.adapter_file, output=out, **lora)
            ours = load_file(str(out))
            error = max(reports.max_relative_error(ours[name], expected[name]) for name in expected)
            limit = reports.TOLERANCES[f"gradient_{self.tag}_max_relative_error"]["value"]
            self.report.true(f"{self.case} control", f"{what} is noticed", error > 5 * limit, f"error {error:.2g}")

    # --- training -------------------------------------------------------------------------------------

    def plan(self, config, rows, groups=None):
        """The rows of every micro-batch of every step, as the engine will visit them."""
        steps = self.engine.run(
            "plan",
            lengths=[len(row["tokens"]) for row in rows],
            groups=groups,
            **{k: config[k] for k in ("seed", "batch_rows", "max_tokens_per_micro_batch", "epochs")},
        )["steps"]
        return [[[rows[i] for i in batch] for batch in step] for step in steps]

    def start(self, seed):
        path = self.subject.work / "initial.safetensors"
        self.engine.run("initial_adapter", seed=seed, output=path, **self.lora())
        return path, referee.load_adapter(path)

    def engine_losses(self, config, initial, rows, validation_rows=None, **fields):
        """Trains; the validation losses by step."""
        answer = self.engine.run(
            "train",
            config=dict(config, **self.lora()),
            rows=rows,
            validation_rows=validation_rows or self.subject.validation_rows,
            initial_adapter=initial,
            output=self.subject.work / "trained.safetensors",
            **fields,
        )
        return {e["step"]: e["validation_loss"] for e in answer["evaluations"]}

    def training_fp32(self, with_vector=False):
        """Same adapter, same rows in the same order: the losses after every step. With the vector, the
        referee trains over the merged base and evaluates, as the engine does, without it."""
        subject = self.subject
        plan = self.plan(subject.config, subject.training_rows)
        config = dict(subject.config, evaluation_points=len(plan))
        initial_file, initial = self.start(config["seed"])
        fields = {"vector": self.vector_file} if with_vector else {"folder": subject.work / "adapter"}
        if not with_vector:
            shutil.rmtree(subject.work / "adapter", ignore_errors=True)
        ours = self.engine_losses(config, initial_file, subject.training_rows, **fields)
        case = f"{self.case} {len(plan)} steps" + (", vector merged" if with_vector else "")
        self.report.true(case, "every step is evaluated", sorted(ours)[-len(plan):] == list(range(1, len(plan) + 1)))

        trained = referee.add_lora(self._merged(), subject.rank, subject.alpha) if with_vector else self.model
        referee.set_adapter(trained, initial)
        referee.set_adapter(self.model, initial)
        before = referee.evaluate(self.model, subject.training_rows)
        trainer = referee.Trainer(trained, config, len(plan))
        worst, worst_step = 0.0, 0
        for index, micro_batches in enumerate(plan):
            trainer.step(micro_batches)
            if with_vector:
                referee.set_adapter(self.model, referee.get_adapter(trained))
            theirs = referee.evaluate(self.model, subject.validation_rows)
            error = abs(ours[index + 1] - theirs) / theirs
            if error > worst:
                worst, worst_step = error, index + 1
        self.report.at_most(case, "training_fp32_loss_relative_error", worst)
        after = referee.evaluate(self.model, subject.training_rows)
        print(f"       largest at step {worst_step}; loss on the training rows {before:.4f} -> {after:.4f}")
        if not with_vector:
            self.report.at_least(case, "training_loss_fall", (before - after) / before)

    def training_bf16(self, seed):
        """Both sides on bf16 weights; only the end is compared."""
        subject = self.subject
        config = dict(subject.bf16_config, evaluation_points=1, seed=seed)
        rows, validation = subject.bf16_training_rows, subject.bf16_validation_rows
        plan = self.plan(config, rows)
        initial_file, initial = self.start(seed)
        ours = self.engine_losses(config, initial_file, rows, validation)
        referee.set_adapter(self.rounded, initial)
        before = referee.evaluate(self.rounded, validation)
        trainer = referee.Trainer(self.rounded, config, len(plan))
        for micro_batches in plan:
            trainer.step(micro_batches)
        theirs = referee.evaluate(self.rounded, validation)
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
                max_new_tokens=count, do_sample=False, eos_token_id=END_TOKEN, pad_token_id=END_TOKEN,
            )[0, len(prompt):].tolist()
        if END_TOKEN in generated:  # the engine stops before it
            generated = generated[: generated.index(END_TOKEN)]
        ours = self.engine.run(
            "sample", prompt=prompt, end_tokens=[END_TOKEN], max_tokens=count, adapter=self.adapter_file,
            **self.lora())["tokens"]
        self.report.true(f"{self.case} greedy reply", "tokens are equal", ours == generated, f"{len(ours)} tokens")


def gradient_rows_of(vocabulary, seed):
    """Documents of very different lengths, one with its first token marked supervised (it has nothing to be
    predicted from), one that ends unsupervised."""
    rows = token_rows.random_rows(vocabulary, [130, 2, 67, 33, 300], 0.5, seed)
    rows[3]["supervised"][0] = 1
    rows[2]["supervised"][-9:] = [0] * 9
    return rows
