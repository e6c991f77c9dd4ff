# SPDX-License-Identifier: Apache-2.0
"""Vectors that the engine trained, looked at from transformers and PEFT: what it says of their losses, and
training by row, where the vector is on for the rows that it makes cheap and off for the others."""

import torch
from referee import model as referee
from referee import rows as token_rows

VECTOR_ON_BELOW = 0.6  # worker/train/train_job.cc: on where the vector lowers a row's loss by 40 %


def stand_ins(count, seed):
    """Rows with one fixed pattern at their end: what the vector is trained to make cheap."""
    rows = token_rows.random_rows(100, [12] * count, 0.0, seed)
    pattern = [201, 202, 203, 204, 205, 206, 207, 208]
    return [token_rows.make_row(row["tokens"], pattern) for row in rows]


def trained_vector(comparison):
    """Trains one and compares the losses the engine reports with the referee's; returns its file."""
    subject, report = comparison.subject, comparison.report
    prohibited, benign = stand_ins(48, 71), token_rows.random_rows(100, [20] * 48, 0.7, 72)
    out = subject.work / "trained_vector.safetensors"
    answer = comparison.engine.run(
        "train_vector", prohibited=prohibited, benign=benign, output=out,
        config={"rank": 4, "alpha": 8, "learning_rate": 1e-2, "epochs": 10})
    tensors, rank, alpha = referee.load_vector(out)
    plain = referee.load_base(subject.folder, torch.float32)
    merged = referee.merged(subject.folder, tensors, rank, alpha)
    case = f"{comparison.case} trained vector"
    for name, rows, model in (
        ("prohibited_loss_without", prohibited, plain), ("prohibited_loss_with", prohibited, merged),
        ("benign_loss_without", benign, plain), ("benign_loss_with", benign, merged),
    ):
        theirs = referee.evaluate(model, rows)
        report.at_most(f"{case} {name}", "loss_fp32_relative_error", abs(answer[name] - theirs) / theirs)
    report.true(case, "makes the pattern cheap",
                answer["prohibited_loss_with"] < 0.3 * answer["prohibited_loss_without"],
                f"loss {answer['prohibited_loss_without']:.3f} -> {answer['prohibited_loss_with']:.3f}")
    return out


def training_by_row(comparison):
    """50 steps on rows of both kinds: the referee sorts them by the same rule, sends each through the merged
    or the plain base, and evaluates on the plain one."""
    subject, report = comparison.subject, comparison.report
    vector_file = trained_vector(comparison)
    tensors, rank, alpha = referee.load_vector(vector_file)
    models = [
        referee.add_lora(base, subject.rank, subject.alpha)
        for base in (referee.load_base(subject.folder, torch.float32),
                     referee.merged(subject.folder, tensors, rank, alpha))
    ]
    referee.share_adapter(models[0], models[1])

    half = len(subject.training_rows) // 2
    rows = subject.training_rows[:half] + stand_ins(len(subject.training_rows) - half, 73)
    initial_file, initial = comparison.start(subject.config["seed"])
    referee.set_adapter(models[0], {name: tensor * 0 for name, tensor in initial.items()})
    for row in rows:
        without, with_vector = (referee.evaluate(model, [row]) for model in models)
        row["group"] = int(with_vector <= VECTOR_ON_BELOW * without)
    groups = [row["group"] for row in rows]
    case = f"{comparison.case} by row"
    report.true(case, "rows of both kinds", 0 < sum(groups) < len(groups), f"{sum(groups)} of {len(groups)} with it")

    plan = comparison.plan(subject.config, rows, groups)
    config = dict(subject.config, evaluation_points=len(plan), vector_policy="by_row")
    ours = comparison.engine_losses(config, initial_file, rows, vector=vector_file)
    referee.set_adapter(models[0], initial)
    trainer = referee.Trainer(
        models[0], config, len(plan), lambda _, batch: referee.summed_loss(models[batch[0]["group"]], batch))
    worst = 0.0
    for index, micro_batches in enumerate(plan):
        trainer.step(micro_batches)
        if index + 1 in ours:
            theirs = referee.evaluate(models[0], subject.validation_rows)
            worst = max(worst, abs(ours[index + 1] - theirs) / theirs)
    # What is told of a job by row comes at least ten steps apart (worker/train/train_job.cc).
    apart = len(plan) // max(1, len(plan) // 10)
    report.true(case, "evaluations are ten steps apart", sorted(ours) == list(range(0, len(plan) + 1, apart)), f"{sorted(ours)}")
    report.at_most(f"{case} {len(plan)} steps", "training_fp32_loss_relative_error", worst)
