# SPDX-License-Identifier: Apache-2.0
"""S4: the vector is in nothing that the run left behind."""

from harness import Steps

STEPS = Steps()
