"""Profiles of links, and what bytes take on them, against sums made by hand."""

import csv

import pytest
from typer.testing import CliRunner

from fed_ist.cli.main import cli
from fed_ist.errors import InputError
from fed_ist.reports.link_costs import mean_node_round, sum_node_rounds
from fed_ist.runs.reading import open_run
from fed_ist.traffic.ledger import Ledger, Transfer
from fed_ist.traffic.links import (
    FIGURES,
    Link,
    air_s,
    find_link,
    joules,
    quota_share,
    read_links,
    round_s,
    wait_s,
)
from fed_ist.traffic.packets import LinkBytes

LINK = Link("x", 8000.0, 4000.0, 0.5, 0.0, 2e-6, 5e-6, 1e6, {})
SENT = LinkBytes(down=10_000, up=2_000)
PLAIN = "down_bps = 1000\nup_bps = 500\nlatency_s = 0.1\nloss = 0.0\n"


def test_every_figure_of_our_profiles_has_a_source():
    links = read_links()
    assert len(links) >= 8
    for link in links.values():
        given = {figure for figure in FIGURES if getattr(link, figure) is not None}
        for figure in given - set(link.sources):
            pytest.fail(f"say in links.toml, [{link.name}.sources], where '{figure}' is from")


def test_lorawan_says_that_tcp_cannot_run_on_it():
    assert "no TCP/IP" in read_links()["lorawan"].note


def test_air_time_is_the_bits_over_the_rates():
    assert air_s(LINK, SENT) == pytest.approx(80_000 / 8000 + 16_000 / 4000)


def test_lost_packets_are_sent_again():
    lossy = Link("x", 8000.0, 4000.0, 0.5, 0.2, 2e-6, 5e-6, 1e6, {})
    assert air_s(lossy, SENT) == pytest.approx(14 / 0.8)
    assert joules(lossy, SENT) == pytest.approx((0.02 + 0.01) / 0.8)


def test_a_duty_cycle_makes_a_node_wait_after_sending():
    # 4 s of sending at one part in a hundred take 400 s; receiving is not limited.
    link = Link("x", 8000.0, 4000.0, 0.5, 0.0, None, None, None, {}, duty_cycle=0.01)
    assert wait_s(link, SENT) == pytest.approx(10 + 400)
    assert air_s(link, SENT) == pytest.approx(14)


def test_energy_and_quota_are_unknown_where_nobody_published_them():
    assert joules(LINK, SENT) == pytest.approx(10_000 * 2e-6 + 2_000 * 5e-6)
    assert quota_share(LINK, SENT) == pytest.approx(0.012)
    bare = Link("x", 8000.0, 4000.0, 0.5, 0.0, 2e-6, None, None, {})
    assert joules(bare, SENT) is None
    assert quota_share(bare, SENT) is None


def test_a_round_is_polls_bytes_round_trips_and_computing():
    assert round_s(LINK, SENT, 7, 20.0) == pytest.approx(3 + 14 + 7 * 2 * 0.5 + 20)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PLAIN.replace("500", "0"), r"up_bps = 0 is not possible. Give a number above 0"),
        (PLAIN.replace("0.1", "'soon'"), r"latency_s = 'soon' is not possible"),
        (PLAIN.replace("0.0", "1.0"), r"loss = 1.0 is not possible. .* below 1"),
        (PLAIN.replace("500", "inf"), r"up_bps = inf is not possible"),
        (PLAIN + "duty_cycle = 2", r"duty_cycle = 2 is not possible. .* 1 at most"),
        (PLAIN + "quota_bytes = true", r"quota_bytes = True is not possible"),
        (PLAIN + "rate = 3", r"unknown key 'rate'. Choose from: down_bps, up_bps"),
        (PLAIN + "sources = 'a book'", r"'sources' must be a table"),
        (PLAIN.replace("loss = 0.0\n", ""), r"'loss' is missing"),
    ],
)
def test_a_profile_that_is_not_possible_is_one_sentence(tmp_path, text, said):
    path = tmp_path / "links.toml"
    path.write_text(f"[mine]\n{text}")
    with pytest.raises(InputError, match=said):
        read_links(path)


def test_own_profiles_are_read_and_unknown_ones_named(tmp_path):
    path = tmp_path / "links.toml"
    path.write_text(f"[mine]\n{PLAIN}")
    assert find_link("mine", path) == Link("mine", 1000.0, 500.0, 0.1, 0.0, None, None, None, {})
    with pytest.raises(InputError, match=r"Unknown link 'lte-m'. Choose from: mine"):
        find_link("lte-m", path)
    with pytest.raises(InputError, match="cannot be read"):
        read_links(tmp_path / "absent.toml")
    path.write_text("mine = 3")
    with pytest.raises(InputError, match=r"\[mine\] is not a table"):
        read_links(path)


@pytest.fixture
def run(tmp_path):
    """A run of one node: prepared, and two rounds."""
    ledger = Ledger(tmp_path / "ledger.csv")
    ledger.add(Transfer(0, "a", "down", "prepare", 0, 400, 3, 3000, 5000))
    for number in (1, 2):
        ledger.add(Transfer(number, "a", "down", "train", 9000, 9500, 3, 11_000, 4_000))
        ledger.add(Transfer(number, "a", "up", "train", 9000, 9500, 3, 3_000, 16_000))
    ledger.close()
    assert ledger.link_bytes == {"down": 31_000, "up": 45_000}
    return tmp_path


def test_a_ledger_is_summed_by_round_and_node(run):
    found = sum_node_rounds(open_run(run))
    assert [(item.round, item.node) for item in found] == [(0, "a"), (1, "a"), (2, "a")]
    assert found[1].sent == LinkBytes(14_000, 20_000)
    assert found[1].n_round_trips == 4 + 5
    assert mean_node_round(found).sent == LinkBytes(14_000, 20_000)


def test_links_prints_what_a_round_takes_and_writes_it(run, tmp_path):
    profiles = tmp_path / "links.toml"
    profiles.write_text(f"[mine]\n{PLAIN}quota_bytes = 340000\nnote = 'far away'\n")
    out = tmp_path / "costs.csv"
    command = ["links", str(run), "--links", str(profiles), "--out", str(out)]
    done = CliRunner().invoke(cli, command)
    # 112 s down and 320 s up; 3 s of polls and 9 round trips of 0.2 s; a tenth of the quota.
    words = done.output.splitlines()[1].split()
    assert words == ["mean", "mine", "14,000", "20,000", "432.00", "436.80", "-", "10.000%"]
    assert "mine: far away" in done.output
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["round"] for row in rows] == ["0", "1", "2"]
    assert float(rows[1]["air_s"]) == pytest.approx(432)
    assert rows[1]["joules"] == ""


def test_one_link_is_shown_by_round_and_node_with_its_sources(run):
    done = CliRunner().invoke(cli, ["links", str(run), "--link", "lte-m", "--compute-s", "5"])
    assert done.exit_code == 0
    lines = [line.split() for line in done.output.splitlines()]
    assert [line[:4] for line in lines[1:5]] == [
        ["0", "a", "3,000", "5,000"],
        ["1", "a", "14,000", "20,000"],
        ["2", "a", "14,000", "20,000"],
        ["all", "a", "31,000", "45,000"],
    ]
    assert lines[4][-1] == "0.076%"  # of 100 MB
    assert "latency_s: 10 to 15 ms" in done.output


def test_a_ledger_of_an_earlier_version_is_one_sentence(tmp_path):
    header = "round,node,direction,kind,payload_bytes,message_bytes\n"
    (tmp_path / "ledger.csv").write_text(header + "1,a,down,train,10,20\n")
    with pytest.raises(InputError, match=r"lacks 'link_bytes_down': the run is of an earlier"):
        sum_node_rounds(open_run(tmp_path))
    with pytest.raises(InputError, match=r"it has no ledger\.csv"):
        sum_node_rounds(open_run(tmp_path / "absent"))
