#!/usr/bin/env python3
"""Draws docs/performance.svg from what `make bench` left in target/criterion.

Each bar is the ratio of a candidate's time to that of the floor beside it, on a logarithmic scale:
left of the line it is faster than the floor, right of it slower.
"""

import json
import math
import pathlib
import sys
from xml.sax.saxutils import escape

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "target" / "criterion"
PICTURE = ROOT / "docs" / "performance.svg"

# What is drawn, in this order: how a group's name begins. The rest is in criterion's own report.
GROUPS = [
    "blocking get, 1 KB",
    "blocking get, 10 KB ÷",
    "blocking get, 100 KB",
    "blocking get, absent",
    "blocking get_many",
    "blocking get, 10 KB, after 10 ms",
    "blocking get, 10 KB, after 3 s",
    "blocking get, 10 KB, the very first",
    "blocking get, 10 KB, 8 threads",
    "nonblocking get, 1 KB",
    "nonblocking get, 10 KB ÷",
    "nonblocking get, 100 KB",
    "nonblocking get, 10 KB, 64 tasks",
    "blocking, a name",
    "nonblocking, a name",
    "in memory, a name",
    "near hit, one module, 1 thread",
    "near hit, 60 modules, 1 thread",
    "near hit, 60 absent paths, 1 thread",
    "near hit, one module, 2 threads",
    "near hit, 60 modules, 2 threads",
    "warm-up",
    "the specification's loop",
    "2.5 ms away",
]

WIDTH, LABELS, VALUES = 900, 330, 60
ROW, TITLE, GAP = 18, 20, 10
LEAST, MOST = 0.25, 128
OURS = ("ModuleReader", "NearCache", "Snapshot", "blocking", "nonblocking")


def results():
    """The median ratio of each candidate, by group."""
    groups = {}
    for file in sorted(RESULTS.glob("*/*/new/benchmark.json")):
        names = json.loads(file.read_text(encoding="utf-8"))
        estimates = json.loads((file.parent / "estimates.json").read_text(encoding="utf-8"))
        ratio = estimates["median"]["point_estimate"]
        groups.setdefault(names["group_id"], {})[names["function_id"]] = ratio
    return groups


def place(ratio):
    share = math.log(min(max(ratio, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
    return LABELS + share * (WIDTH - LABELS - VALUES)


def draw(groups):
    drawn, y = [], 10
    for prefix in GROUPS:
        for name in sorted(name for name in groups if name.startswith(prefix)):
            title, _, floor = name.partition(" ÷ ")
            drawn.append(
                f'<text x="8" y="{y + 14}" class="title">{escape(title)}'
                f'<tspan class="floor">, beside {escape(floor)}</tspan></text>'
            )
            y += TITLE
            rows = sorted(groups[name].items(), key=lambda row: not row[0].startswith(OURS))
            for label, ratio in rows:
                start, end = sorted((place(1), place(ratio)))
                kind = "ours" if label.startswith(OURS) else "peer"
                drawn.append(
                    f'<text x="{LABELS - 8}" y="{y + 13}" class="label">{escape(label)}</text>'
                    f'<rect x="{start:.1f}" y="{y + 3}" width="{max(end - start, 1.5):.1f}" '
                    f'height="{ROW - 6}" class="{kind}"/>'
                    f'<text x="{place(max(ratio, 1)) + 5:.1f}" y="{y + 13}" class="value">'
                    f"{ratio:.2f} ×</text>"
                )
                y += ROW
            y += GAP
    line = f'<line x1="{place(1):.1f}" x2="{place(1):.1f}" y1="6" y2="{y - GAP + 4}"/>'
    style = (
        "text{font:12px sans-serif;fill:#57606a;paint-order:stroke;stroke:#fff;stroke-width:4px}"
        ".title{font-weight:bold}.floor{font-weight:normal}"
        ".label{text-anchor:end}.ours{fill:#0969da}.peer{fill:#afb8c1}"
        "line{stroke:#57606a;stroke-dasharray:3 3}svg{background:#fff}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" '
        f'aria-label="Ratios of times to the floor beside each">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{line}{''.join(drawn)}</svg>\n"
    )


def main():
    groups = results()
    if not groups:
        sys.exit("there is nothing in target/criterion: run `make bench`")
    PICTURE.write_text(draw(groups), encoding="utf-8")
    print(f"drew {PICTURE.relative_to(ROOT)} from {len(groups)} groups")


if __name__ == "__main__":
    main()
