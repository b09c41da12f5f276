"""Whether anything is known against what constraints.txt pins; asks PyPI, by pip-audit.

Exit code 0: nothing is known against any that could be asked for. 1: something is, or the ignored
advisories are not in order. 3: the advisories are out of reach, as without a network or behind a
mirror that has the packages alone; then nothing has been found out, and CI goes on.

An advisory that has no fix, or does not concern us, goes into .ci/audit-ignored.txt: a line each,
its id, then why. It is named again when nothing needs it any more.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

FINE, FOUND, UNREACHABLE = 0, 1, 3
ROOT = Path(__file__).resolve().parent.parent
NO_NETWORK = re.compile(r"ConnectionError|Timeout|ProxyError|SSLError|your network may be blocking")
Report = dict[str, list[dict[str, Any]]]


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "constraints.txt")]
    command += ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, errors="replace")
    ignored, problems = read_ignored(
        (ROOT / ".ci" / "audit-ignored.txt").read_text(encoding="utf-8")
    )
    code, lines = understand(done.stdout, done.stderr, ignored)
    print(*problems, *lines, sep="\n")
    return FOUND if problems else code


def understand(stdout: str, stderr: str, ignored: set[str]) -> tuple[int, list[str]]:
    """(exit code, what to print) of what pip-audit wrote: its own code is 1 for every trouble."""
    try:
        report: Report = json.loads(stdout)
    except ValueError:
        if NO_NETWORK.search(stderr):
            return UNREACHABLE, ["Not audited: the advisories cannot be reached from here."]
        return FOUND, ["pip-audit has failed:", stderr]
    packages = report["dependencies"]
    asked = [package for package in packages if "skip_reason" not in package]
    if not asked:
        return UNREACHABLE, ["Not audited: the index that is reached here has no advisories."]
    return judge(asked, [p["name"] for p in packages if "skip_reason" in p], ignored)


def judge(
    asked: list[dict[str, Any]], skipped: list[str], ignored: set[str]
) -> tuple[int, list[str]]:
    """The same, of the packages for which there was an answer."""
    lines, used = [], set()
    for package in asked:
        for advisory in package["vulns"]:
            ids = {advisory["id"], *advisory["aliases"]}
            used |= ids & ignored
            if not ids & ignored:
                fixed = ", ".join(advisory["fix_versions"]) or "nowhere yet"
                lines.append(
                    f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}"
                )
    code = FOUND if lines else FINE
    lines += [f"No longer needed in audit-ignored.txt: {name}" for name in sorted(ignored - used)]
    if skipped:
        lines.append(f"Not on PyPI, hence not audited: {', '.join(skipped)}")
    found = "something" if code else "nothing" + " more" * bool(used)
    return code, [*lines, f"{len(asked)} packages audited: {found} is known against them."]


def read_ignored(text: str) -> tuple[set[str], list[str]]:
    """(ids of the ignored advisories, what is wrong with their list)."""
    ids, problems = set(), []
    for line in text.splitlines():
        name, _, reason = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        ids.add(name)
        if not reason.strip():
            problems.append(f"audit-ignored.txt does not say why {name} is ignored.")
    return ids, problems


if __name__ == "__main__":
    sys.exit(main())
