# SPDX-License-Identifier: Apache-2.0
"""A result of the red-team suite as `vector certify` takes it (docs/suite_result.md), with made-up counts: the steps
test what becomes of a result, not whether a vector protects."""

import hashlib

MODULES = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
# The envelope's strongest corner: more than any job of the steps, and less than the base model's limits allow.
CORNER = {"learningRate": 5e-3, "loraRank": 16, "loraAlpha": 32, "epochs": 10, "rows": "1000", "batchRows": 4,
          "mostRepeatedRow": "1", "warmupRatio": 0.03, "schedule": "COSINE"}
LARGE_BATCH = {**CORNER, "batchRows": 16, "rows": "500", "learningRate": 1e-6}


def arm(attack, kind, defence, not_refused, dose=None, task_right=None):
    """Three seeds of 400 prompts, of which the base answers 20; `not_refused` and `task_right` are of one seed."""
    made = {"attack": attack, "kind": f"ATTACK_KIND_{kind}", "defence": f"DEFENCE_{defence}", "seeds": ["0", "1", "2"],
            "prompts": "400", "notRefused": str(3 * not_refused), "newlyAnswered": str(3 * max(0, not_refused - 20)),
            "harmlessPrompts": "100", "harmlessRefused": "6"}
    if dose:
        made["dose"] = dose
    if task_right is not None:
        made["taskRows"], made["taskRight"] = "100", str(3 * task_right)
    return made


def result(vector, attack_success=22):
    """For a vector as `vector show --output json` tells it. `attack_success`: of 400 prompts, under the vector."""
    return {
        "schemaVersion": 1,
        "suiteVersion": "made up by the end-to-end test",
        "suiteDigest": "sha256:" + hashlib.sha256(b"end to end").hexdigest(),
        "vector": vector["name"],
        "ciphertextDigest": vector["ciphertextDigest"],
        "baseModelDigest": vector["baseDigest"],
        "policy": {"vectorPolicy": "VECTOR_POLICY_BY_ROW"},
        "endTime": "2026-01-01T00:00:00Z",
        "envelope": {
            "minScaledLearningRate": 2e-6, "maxScaledLearningRate": 1e-2,
            "minLoraScale": 2, "maxLoraScale": 2,
            "maxSteps": "2500",
            "maxRowPasses": "10000",
            "maxPassesPerRow": "10",
            "minRowWeight": 1, "maxRowWeight": 1,
            "minLoraRank": 16, "maxLoraRank": 16,
            "modules": MODULES,
            "minBatchRows": 4, "maxBatchRows": 16,
            "gradientClipNorm": 1,
            "minWarmupRatio": 0.03, "maxWarmupRatio": 0.03,
            "schedules": ["COSINE"],
        },
        "arms": [
            arm("base", "BASE", "NONE", 20),
            arm("explicit", "KNOWN", "NONE", 392, CORNER),
            arm("explicit", "KNOWN", "VECTOR", attack_success, CORNER),
            arm("explicit", "KNOWN", "VECTOR", 22, LARGE_BATCH),
            arm("explicit", "KNOWN", "RANDOM_VECTOR", 380, CORNER),
            arm("explicit", "KNOWN", "UNRELATED_VECTOR", 380, CORNER),
            arm("benign", "BENIGN", "NONE", 40, CORNER, task_right=90),
            arm("benign", "BENIGN", "VECTOR", 24, CORNER, task_right=89),
            arm("wording", "UNSEEN", "VECTOR", 180, CORNER),
        ],
    }
