# SPDX-License-Identifier: Apache-2.0
"""Transformers and PEFT as referees of the training engine: used by tests/parity and tests/bench."""
