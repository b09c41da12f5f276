"""The audit of dependencies: what was found is told apart from what could not be asked."""

import importlib.util
import json

import pytest
from conftest import ROOT

spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)

# As pip-audit 2.10.1 writes them.
FINE = {"name": "idna", "version": "3.20", "vulns": []}
MISSING = {
    "name": "jinja2",
    "skip_reason": "Dependency not found on PyPI and could not be audited: jinja2 (3.1.2)",
}
BAD = {
    "name": "jinja2",
    "version": "3.1.2",
    "vulns": [
        {
            "id": "PYSEC-2024-1",
            "fix_versions": ["3.1.3"],
            "aliases": ["CVE-2024-22195", "GHSA-h5c8-rqwp-cp95"],
            "description": "xmlattr",
        }
    ],
}
NO_FIX = {**BAD, "vulns": [{**BAD["vulns"][0], "fix_versions": []}]}
OFFLINE = (
    "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='pypi.org', port=443): Max "
    "retries exceeded with url: /pypi/jinja2/3.1.2/json (Caused by NameResolutionError(...))"
)


def outcome(*packages, ignored=()):
    code, lines = audit.understand(
        json.dumps({"dependencies": packages, "fixes": []}), "", set(ignored)
    )
    return code, "\n".join(lines)


def test_nothing_known_is_fine():
    assert outcome(FINE) == (0, "1 packages audited: nothing is known against them.")


def test_an_advisory_fails_and_says_where_it_is_fixed():
    code, text = outcome(FINE, BAD)
    assert code == 1
    assert "jinja2 3.1.2: PYSEC-2024-1, fixed in 3.1.3\n2 packages audited: something" in text
    assert "fixed in nowhere yet" in outcome(NO_FIX)[1]


@pytest.mark.parametrize("name", ["PYSEC-2024-1", "CVE-2024-22195"])
def test_an_advisory_is_ignored_by_any_of_its_names(name):
    assert outcome(BAD, ignored=[name]) == (
        0,
        "1 packages audited: nothing more is known against them.",
    )


def test_an_ignored_advisory_that_nothing_needs_is_named():
    code, text = outcome(FINE, ignored=["CVE-1"])
    assert code == 0
    assert "No longer needed in audit-ignored.txt: CVE-1" in text


def test_some_packages_that_are_not_on_pypi_are_named_and_do_not_hide_the_others():
    assert outcome(FINE, MISSING)[0] == 0
    assert "Not on PyPI, hence not audited: jinja2" in outcome(FINE, MISSING)[1]
    assert outcome(BAD, {**MISSING, "name": "idna"})[0] == 1


def test_without_a_network_or_behind_a_mirror_of_packages_alone_nothing_is_claimed():
    """A mirror answers 404, which pip-audit takes for packages that are not on PyPI."""
    assert audit.understand("", OFFLINE, set())[0] == 3
    code, text = outcome(MISSING)
    assert (code, text) == (3, "Not audited: the index that is reached here has no advisories.")


def test_another_failure_is_no_lack_of_a_network():
    code, lines = audit.understand("", "ERROR: invalid requirements input: constraints.txt", set())
    assert code == 1
    assert "invalid requirements input" in "\n".join(lines)


def test_an_advisory_is_ignored_for_a_reason():
    ids, problems = audit.read_ignored("# a list\n\nCVE-1  no HTML is made of it\nCVE-2\n")
    assert ids == {"CVE-1", "CVE-2"}
    assert problems == ["audit-ignored.txt does not say why CVE-2 is ignored."]
    assert audit.read_ignored((ROOT / ".ci" / "audit-ignored.txt").read_text())[1] == []
