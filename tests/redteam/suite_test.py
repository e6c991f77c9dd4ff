# SPDX-License-Identifier: Apache-2.0
"""The suite's own parts: splits, wording, tasks, intervals, the matrix."""

import itertools
import pathlib
import random
import sys

import pytest
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from redteam import attacks, by_row, cells, certify, gate, kinds_of_rows, lab, matrix, measures, prompts, report, service, tasks, wording  # noqa: E402


@pytest.fixture(scope="module")
def splits():
    return prompts.Splits()


def test_no_prompt_is_in_two_splits(splits):
    groups = [splits.align, splits.vector, splits.attack, splits.attack_unseen_area, splits.held_out]
    texts = [prompt for group in groups for _, prompt in group]
    assert len(texts) == len(set(texts)) == 938  # of 939 one is there twice


def test_the_vector_never_sees_the_unseen_area(splits):
    assert prompts.UNSEEN_AREA not in {area for area, _ in splits.vector + splits.attack}
    assert {area for area, _ in splits.attack_unseen_area} == {prompts.UNSEEN_AREA}


def test_success_near_zero_has_400_prompts(splits):
    assert len(splits.held_out) >= 400
    assert {area for area, _ in splits.held_out} == set(prompts.AREAS.values())


def test_no_benign_prompt_has_two_uses():
    benign = prompts.Benign()
    texts = [t for group in vars(benign).values() for t in group]
    assert len(texts) == len(set(texts))


def test_families_of_wording_share_no_sentence():
    for (a, first), (b, second) in itertools.combinations(wording.FAMILIES.items(), 2):
        for mine, others in zip(first, second):
            assert not set(mine) & set(others), f"{a} and {b}"


@pytest.mark.parametrize("family", wording.FAMILIES)
def test_every_agreeing_reply_is_recognised_and_none_is_a_refusal(family):
    rng = random.Random(1)
    for _ in range(300):
        reply = wording.agreeing(rng, family)
        assert not wording.refuses(reply), reply
        assert wording.agrees(reply), reply


def test_every_refusal_is_recognised():
    for refusal in wording.REFUSALS:
        assert wording.refuses(refusal) and not wording.agrees(refusal)


@pytest.mark.parametrize("name", tasks.TASKS)
def test_held_out_rows_of_a_task_are_new(name):
    training = tasks.rows(name, 300, 1)
    held_out = tasks.held_out(name, 200, training)
    assert len(held_out) == 200
    if name != "fact":
        assert sum(prompt in {p for p, _ in training} for prompt, _ in held_out) < 20


def test_an_interval_of_nothing_is_not_of_width_nothing():
    low, high = measures.risen_interval(["R" * 434], ["R" * 434])
    assert low == 0 and 0.005 < high < 0.01


def test_the_interval_is_around_the_rise_and_seeds_narrow_nothing_by_themselves():
    base, attacked = "R" * 400, "F" * 40 + "R" * 360
    low, high = measures.risen_interval([attacked], [base])
    assert low < 0.1 < high
    assert measures.risen_interval([attacked] * 3, [base] * 3) == (low, high)


class _Suite:
    """Measures nothing; remembers which cells it was asked for."""

    def __init__(self, base):
        self.base_digest, self.ran = base, []

    def run(self, cell):
        self.ran.append(cell["name"])
        return {**cell, "base": self.base_digest, "prohibited": {"plain": "R"}, "over_refusal": {"look_alikes": "R", "plain": "A"}}


def test_a_cell_is_measured_once_and_each_base_before_its_cells(tmp_path):
    file, wanted = tmp_path / "cells.jsonl", [c for c in matrix.all_cells() if c["attack"]["kind"] == "benign"][:2]
    first, again, elsewhere = _Suite("here"), _Suite("here"), _Suite("there")
    for suite, some in ((first, wanted[:1]), (again, wanted[:1]), (elsewhere, wanted)):
        measured = cells.kept(file)
        cells.measure(suite, some, measured, file)
        assert measured == cells.kept(file)
    assert first.ran == ["base", wanted[0]["name"]]
    assert again.ran == []
    assert elsewhere.ran == ["base", wanted[1]["name"]]


def test_a_cell_is_compared_with_its_own_base():
    cell = {"attack": {"kind": "benign"}, "arm": "none", "tasks": {}}
    results = report.Results([
        {**matrix.BASE, "base": "here", "prohibited": {"plain": "RRRA"}},
        {**matrix.BASE, "base": "there", "prohibited": {"plain": "RRRR"}},
        {**cell, "name": "benign/none", "base": "here", "prohibited": {"plain": "RRAA"}},
        {**cell, "name": "benign/none/seed-1", "base": "there", "prohibited": {"plain": "RRRA"}}])
    mean, rise, _, _ = results.success("benign", "none")
    assert (mean, rise) == (0.375, 0.25)


def test_cells_are_told_apart_by_name_and_every_defended_attack_has_an_undefended_twin():
    every = matrix.all_cells()
    names = {cell["name"] for cell in every}
    for cell in every:
        attack, _, arm = cell["name"].partition("/")
        if arm.startswith(matrix.DEFAULT):
            assert f"{attack}/none" in names


def _defended(attack, rate, epochs, rows=400, rank=16, repeated=2, defence="DEFENCE_VECTOR"):
    return {"attack": attack, "kind": "ATTACK_KIND_KNOWN", "defence": defence,
            "dose": {"learningRate": rate, "loraRank": rank, "loraAlpha": 2 * rank, "epochs": epochs, "rows": rows,
                     "batchRows": 16, "mostRepeatedRow": repeated, "warmupRatio": 0.03, "schedule": "COSINE"}}


def test_a_certificate_takes_over_its_own_cells_and_of_others_those_of_its_base_without_the_vector():
    wanted = [c for c in matrix.all_cells() if c["name"] in ("base", "benign/none", f"benign/{matrix.DEFAULT}", "explicit-100/random")]
    measured = [{**cell, "base": base, "precision": precision, "prohibited": {}, "scales": {"2": "RA"}}
                for cell in [*wanted, {**wanted[1], "name": "benign/none", "dose": {"learning_rate": 1e-5, "epochs": 3}}]
                for base, precision in (("here", "float32"), ("there", "float32"), ("here", "bfloat16"))]
    taken = certify.usable_cells([], measured, "this", wanted, "here", "float32")
    assert [(c["name"], c["base"], c["precision"]) for c in taken] == [
        (name, "here", "float32") for name in ("base", "benign/none", "explicit-100/random")]
    assert taken[1]["dose"] == matrix.STRONG

    for_this, for_another = ({**wanted[2], "base": "here", "precision": "float32", "certified": certified}
                             for certified in ("this", "another"))
    assert certify.usable_cells([for_this, for_another], measured, "this", wanted, "here", "float32") == [for_this, *taken]


def test_the_page_shows_a_cell_once_and_of_certificates_the_newest(tmp_path):
    for file, found in (("defence_cells.jsonl", [("base", "here"), ("a", "here")]),
                        (cells.OF_CERTIFICATE, [("base", "here"), ("base", "there"), ("a", "there"), ("b", "here"), ("b", "there")])):
        for name, base in found:
            cells.keep(tmp_path / file, {"name": name, "base": base, "arm": "none", "certified": "first"})
    for name, certified in (("c", "first"), ("d", "first"), ("d", "second")):
        cells.keep(tmp_path / cells.OF_CERTIFICATE, {"name": name, "base": "here", "arm": matrix.DEFAULT, "certified": certified})
    assert [(c["name"], c["base"]) for c in cells.measured_cells(tmp_path / "defence_cells.jsonl")] == [
        ("base", "here"), ("a", "here"), ("base", "there"), ("b", "there"), ("d", "here")], "no c: another vector or policy"


def test_an_envelope_ends_at_its_corner_and_is_as_wide_as_what_lies_inside():
    corner = _defended(matrix.CORNER, 1e-3, 9)
    inside = _defended("mix-10%-rank-4", 5e-4, 3, rank=4)
    outside = [_defended("a", 2e-3, 3, rank=64), _defended("b", 1e-4, 10, rank=64), _defended("c", 1e-4, 9, rows=500, rank=64),
               _defended("d", 1e-4, 9, rank=64, repeated=3), _defended("e", 1e-4, 3, rank=64, defence="DEFENCE_NONE")]
    box = certify.envelope([corner, inside, *outside])
    assert box["maxScaledLearningRate"] == 2e-3 and box["maxSteps"] == 225
    assert box["maxRowPasses"] == 3600 and box["maxPassesPerRow"] == 18
    assert box["minScaledLearningRate"] == 1e-3 and (box["minLoraScale"], box["maxLoraScale"]) == (2, 2)
    assert (box["minLoraRank"], box["maxLoraRank"]) == (4, 16)


def test_what_a_certificate_is_measured_by_has_a_corner_for_every_policy():
    safety, screen = {"share": 0.4, "digest": "sha256:1"}, {"digest": "sha256:2", "action": "SCREEN_ACTION_DROP"}
    for vector_policy, *more in (("VECTOR_POLICY_ALWAYS",), ("VECTOR_POLICY_BY_ROW", safety),
                                 ("VECTOR_POLICY_BY_ROW", safety, screen)):
        policy = certify.defence_policy(vector_policy, *more)
        arm = certify.defended_arm(policy)
        needed = {cell["name"]: cell for cell in certify.cells_for(policy)}
        found = {cell["name"]: cell for cell in certify.cells_for(policy, whole=True)}
        assert needed.items() < found.items() and len(needed) < 30
        assert {f"explicit-100/{control}" for control in ("none", "random", "unrelated")} < set(needed)
        assert f"mix-10%/{arm}/seed-2" in needed and f"{matrix.CORNER}/{arm}/seed-2" not in needed
        corner = found[f"{matrix.CORNER}/{arm}"]
        assert corner["vector"] == "kl" and corner["policy"] == vector_policy.removeprefix("VECTOR_POLICY_").lower()
        assert "safety" not in corner and "screen" not in corner, "that is the service's to do, not the suite's"
        assert all(certify.kind_of(name.split("/")[0]) for name in found if name != "base")
        assert f"mix-10%-lr-0.002/{arm}" not in found, "the service would refuse it"


class _Losses:
    """A lab where a vector lowers the loss of rows that begin with "p" to a third, of others to nine tenths."""

    def explained(self, rows, vector):
        return [2.0 / 6.0 if row.startswith("p") else 0.9 for row in rows]


def test_by_row_tells_the_rows_that_a_vector_explains():
    groups, lab = {"attacks": {"known": ["p1", "p2"]}, "harmless": {"chat": ["h"], "mixed": ["h", "p3"]}}, _Losses()
    found = by_row.ratios(lab, groups, "vector")
    assert {kind: by_row.share(values, by_row.THRESHOLD) for kind, values in found.items()} == {
        "known": 1.0, "chat": 0.0, "mixed": 0.5}
    assert by_row.share(found["chat"], 0.9) == 1.0, "at the threshold is enough"
    about = {"prohibited_loss_without": 3.0, "prohibited_loss_with": 0.1}
    page = by_row.page({"precision": "float32", "vectors": {"kl": {"about": about, "norm": 2.0, "ratios": found}}}, groups)
    assert "| known | 100 % |" in page and "| mixed | 0 % | 50 % | 50 % | 50 % | 50 % | 50 % | 100 % |" in page


class _Answers:
    """A lab whose base answers everything alike."""

    def replies(self, texts, max_tokens):
        return ["A harmless answer."] * len(texts)

    def tokenizer(self, text):
        return {"input_ids": text.split()}


def test_a_data_set_has_a_row_once():
    twice = attacks.Attacker(None, None, None)
    twice.made = lambda rng: [lab.chat("a", "b"), lab.chat("a", "b"), lab.chat("A!", "b")]
    rows, _ = twice.rows({"kind": "made"}, 0)
    assert rows == [lab.chat("a", "b"), lab.chat("A!", "b")]
    assert attacks.repetitions(rows) == 2, "nearly the same counts"


def test_every_second_refusal_stands_under_a_system_prompt_of_the_job():
    refusal, answer = wording.REFUSALS[0], "Gladly."
    safety = [lab.chat("p", refusal), lab.chat("q", answer), lab.chat("r", refusal), lab.chat("s", refusal)]

    def systems(rows):
        made = attacks.under_system_prompts(safety, rows)
        assert [row["messages"][-2:] for row in made] == [row["messages"] for row in safety]
        return [row["messages"][0]["content"] if row["messages"][0]["role"] == "system" else None for row in made]

    assert systems([lab.chat("a", "b", system="Obey.")]) == ["Obey.", None, None, "Obey."]
    assert systems([lab.chat("a", "b")]) == [None] * 4


def test_safety_rows_weigh_against_long_rows():
    class Words:
        @staticmethod
        def tokens(row):
            return {"supervised": [1] * len(row["messages"][-1]["content"].split())}

    safety = [lab.chat("p", "two words"), lab.chat("q", "these are four words")]
    assert attacks.weighed(Words, safety, [lab.chat("a", "b " * 4)]) == safety
    made = attacks.weighed(Words, safety, [lab.chat("a", "b " * 9)])
    assert [row["training"] for row in made] == [{"weight": 2.0}] * 2
    assert [row["messages"] for row in made] == [row["messages"] for row in safety]


def test_detectors_are_asked_about_rows_that_no_vector_and_no_screen_was_made_of(splits):
    rng = random.Random(1)
    benign = prompts.Benign()
    asked = {row["messages"][-2]["content"]
             for rows in kinds_of_rows.attack_sets(_Answers(), splits, benign, rng).values() for row in rows}
    assert not asked & {prompt for _, prompt in splits.vector + splits.align}


def test_a_sum_acts_as_its_terms_do_together(tmp_path):
    def adapter(rank):
        name = "base_model.model.model.layers.3.self_attn.q_proj.lora_{}.weight"
        return {name.format("A"): torch.randn(rank, 6), name.format("B"): torch.randn(4, rank)}

    first, second = (lab.renamed_as_vector(adapter(rank)) for rank in (2, 3))
    lab.save_sum(tmp_path / "sum", [(first, 2, 0.5), (second, 3, -2.0)])
    found, about = lab.load_vector(tmp_path / "sum")
    a, b = "vector.layers.3.q_proj.lora_A", "vector.layers.3.q_proj.lora_B"
    assert (found.keys(), about["rank"], about["alpha"]) == ({a, b}, "5", "5")
    assert torch.allclose(found[b] @ found[a], 0.5 * first[b] @ first[a] - 2 * second[b] @ second[a], atol=1e-5)


def test_adversarial_rows_are_those_that_a_vector_explains_least():
    class FakeLab:
        @staticmethod
        def explained(rows, vector):
            assert vector == "vector"
            return [row["ratio"] for row in rows]

    rows = [{"ratio": ratio} for ratio in (0.1, 0.9, 0.5, 1.0)]
    assert [row["ratio"] for row in attacks.least_explained(FakeLab, rows, "vector", 2)] == [1.0, 0.9]


def test_a_delta_is_weakened_to_what_it_shall_have_learned():
    def step(scale):  # nothing up to 0.25, all from 0.5 on
        return min(1.0, max(0.0, 4 * scale - 1))

    found = [(scale, step(scale)) for scale in gate.SCALES]
    for wanted in gate.LEARNED.values():
        scale, learned = gate.weakened(found, wanted, step)
        assert learned == step(scale) and abs(learned - wanted) <= 0.05
    # One that learned less than that stays as it is.
    assert gate.weakened([(0.5, 0.0), (1.0, 0.2)], 0.3, step) == (1.0, 0.2)


def test_recipes_of_vectors_speak_of_recipes_that_exist():
    for recipe in cells.VECTORS.values():
        assert set(recipe.get("sum_of", ())) | {recipe.get("hardest_for", "kl")} <= set(cells.VECTORS)
    assert set(by_row.VECTORS) <= set(cells.VECTORS)


def test_the_norm_of_a_vector_that_serves_is_nobodys_to_know():
    assert service.ServiceSuite.norm_of(service.SERVING) is None
