# SPDX-License-Identifier: Apache-2.0
"""What is kept of runs: a file each, and their sums in control_plane.json."""

import json
import pathlib

SUMMED = ("kills", "lost", "duplicate_deltas", "stuck", "orphans")


def publish(folder, report):
    """Writes the report of a run into `folder`, and the sums over the newest run of each kind: stores, number of servers."""
    folder = pathlib.Path(folder)
    kind = report["database"].lower() + ("_s3" if report["blobs"] == "S3" else "")
    servers = report.get("servers", 1)
    if servers > 1:
        kind += f"_{servers}_servers"
    (folder / f"chaos_{kind}.json").write_text(json.dumps(report, indent=1) + "\n")
    reports = [json.loads(file.read_text()) for file in sorted(folder.glob("chaos_*.json"))]
    sums = {name: sum(one[name] for one in reports) for name in SUMMED}
    hit = {step for one in reports for step in one["steps"]}
    named = {step for one in reports for step in one["steps_named"]}
    summary = folder / "control_plane.json"
    known = json.loads(summary.read_text()) if summary.exists() else {}
    summary.write_text(json.dumps({**known, **sums, "steps_hit": len(hit), "steps_total": len(named)}, indent=1) + "\n")
