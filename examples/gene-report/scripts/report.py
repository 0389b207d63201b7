"""Joins base counts with the sample sheet: report/report.md, report/groups.json, cwl.output.json."""

import collections
import csv
import json
import pathlib
import sys


def percent(part, whole):
    return round(100 * part / whole, 2) if whole else 0.0


def main(table, samples):
    with open(samples, newline="") as file:
        group_of = {row["gene"]: row["group"] for row in csv.DictReader(file, delimiter="\t")}
    groups = collections.defaultdict(lambda: {"genes": 0, "bases": 0, "gc": 0})
    with open(table, newline="") as file:
        for name, length, _a, c, g, _t, _rest in csv.reader(file, delimiter="\t"):
            if name not in group_of:
                sys.exit(f"the sample sheet has no group for {name}")
            group = groups[group_of[name]]
            group["genes"] += 1
            group["bases"] += int(length)
            group["gc"] += int(c) + int(g)
    lines = ["| group | genes | bases | GC % |", "|---|---:|---:|---:|"]
    for name, group in sorted(groups.items()):
        group["gc_percent"] = percent(group["gc"], group["bases"])
        lines.append(f"| {name} | {group['genes']} | {group['bases']} | {group['gc_percent']} |")
    folder = pathlib.Path("report")
    folder.mkdir()
    (folder / "report.md").write_text("\n".join(lines) + "\n")
    (folder / "groups.json").write_text(json.dumps(dict(sorted(groups.items())), indent=2) + "\n")
    total = {key: sum(group[key] for group in groups.values()) for key in ("genes", "bases", "gc")}
    answer = {
        "report": {"class": "Directory", "path": "report"},
        "genes": total["genes"],
        "gc_percent": percent(total["gc"], total["bases"]),
    }
    pathlib.Path("cwl.output.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
