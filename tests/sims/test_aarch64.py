"""The proof on an emulated ARM: what can be said of it without one."""

import pytest
from conftest import ROOT

from fed_ist.errors import InputError
from sims.benchmarks.aarch64 import (
    REPORTED,
    TESTS,
    find_tests,
    merge_constraints,
    render,
    require_emulation,
)

RECORD = """<testsuites><testsuite>
<testcase classname="tests.test_masks" name="a" time="1.5"/>
<testcase classname="tests.test_masks" name="b" time="2"><failure/></testcase>
<testcase classname="tests.test_onnx" name="c" time="0"><skipped/></testcase>
</testsuite></testsuites>"""


def test_special_constraints_count_instead_of_the_general():
    merged = merge_constraints("numpy==2.4.6\nTorch==2.14.1\n", "# why\ntorch==2.10.0\n")
    assert merged == "numpy==2.4.6\ntorch==2.10.0\n"


def test_the_report_counts_outcomes_and_names_failures(tmp_path):
    (tmp_path / "junit.xml").write_text(RECORD)
    text = render(tmp_path / "junit.xml", dict.fromkeys(REPORTED, "1.0"), 120)
    assert "| test_masks | 1 | 0 | 1 | 4 |" in text
    assert "| test_onnx | 0 | 1 | 0 | 0 |" in text
    assert "- failed: test_masks::b" in text
    assert "in 2 minutes" in text


def test_each_chosen_test_is_there():
    assert [path.stem.removeprefix("test_") for path in find_tests(ROOT)] == list(TESTS)


def test_without_root_it_is_one_sentence(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(InputError, match="needs Linux and root"):
        require_emulation()
