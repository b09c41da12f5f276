"""The planner: bytes, seconds and joules of each way to train, by hand, from small run folders."""

import csv
import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from fed_ist.cli.main import cli
from fed_ist.config.run_config import RunConfig
from fed_ist.config.toml import write_toml
from fed_ist.encoder.cost import Vit, read_vit
from fed_ist.errors import InputError
from fed_ist.planning.plan import (
    Cost,
    Plan,
    Question,
    default_accuracy,
    estimate_encoding_speed,
    make_plans,
    price,
)
from fed_ist.planning.runs import planned_run
from fed_ist.planning.table import (
    HEADER,
    plan_data,
    plan_row,
    render_plans,
    show_plans,
    write_plans,
)
from fed_ist.planning.ways import Demand, Way, measured_way
from fed_ist.runs.reading import open_run
from fed_ist.traffic.links import Link, read_links
from fed_ist.training.boards import POWER_W, PROFILES, Device
from fed_ist.words import readable_bytes

# 8 kbit/s down, 4 up, a second to the server; a tenth of the packets is lost.
LINK = Link("slow", 8000, 4000, 1.0, 0.1, 0.001, 0.002, None, {})
SILENT = replace(LINK, name="silent", up_j_per_byte=None)
DEVICE = Device(multiply_adds_per_s=1000, step_s=0.5)
# Bundled: 8 blocks of 192, 64 patches of 8 x 8 x 3, of which half is kept, and a class token.
BUNDLED_MULTIPLY_ADDS = 32 * 192 * 192 + 8 * (12 * 192**2 * 33 + 2 * 33**2 * 192)
NODES = ("0", "1")


@pytest.fixture
def write_run(make_config, tmp_path):
    """Writes a run of two nodes with 100 images each: accuracies by round, from 0 on."""

    def write(name, accuracies, links=False, summary=None, **changes):
        config: RunConfig = make_config(**({"dataset": "beach", "hidden_dim": 32} | changes))
        path = tmp_path / name
        path.mkdir()
        (path / "config.toml").write_text(write_toml(config.to_mapping()))
        messages = []
        for i in range(len(accuracies)):
            kind = "train" if i else "prepare"
            for node in NODES:
                messages.append(message(i, node, "down", kind, 1000 if i else 10, links))
                messages.append(message(i, node, "up", kind, 3000 if i else 30, links))
        write_csv(path / "ledger.csv", messages)
        rounds = [
            {"round": i, "accuracy": accuracy, "loss": 1.0, "bytes_down": 0, "bytes_up": 0}
            for i, accuracy in enumerate(accuracies)
        ]
        write_csv(path / "rounds.csv", rounds)
        figures = {
            "clients": 2, "images": 200, "groups": 2 if config.strategy == "ist" else 1,
            "embed_dim": 192, "num_classes": 10, "image_bytes_original": 7000.0,
            "image_bytes_packed": 6000.0,
        }  # fmt: skip
        (path / "summary.json").write_text(json.dumps(figures | (summary or {})))
        return path

    return write


def read_planned(folder):
    return planned_run(open_run(folder))


def message(i, node, direction, kind, n_bytes, links):
    """A line of a ledger; one that estimates the link says 5000 to the node and 700 from it."""
    line = {"round": i, "node": node, "direction": direction, "kind": kind}
    line |= {"payload_bytes": 0, "message_bytes": n_bytes}
    return line | ({"link_bytes_down": 5000, "link_bytes_up": 700} if links else {})


def write_csv(path, rows):
    """By hand: with the columns that the tables of runs have in all versions."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def plan_of(*folders, link=LINK, **asked) -> Plan:
    return make_plans([read_planned(folder) for folder in folders], [link], Question(**asked))[0]


def by_name(plan: Plan) -> dict[str, tuple[Way, Cost | None]]:
    return {way.name: (way, cost) for way, cost in plan.ways}


def test_the_price_of_a_worked_example():
    demand = Demand(9000, 1800, 3, n_encoded=10, train_multiply_adds=4000, n_steps=6)
    cost = price(Way("", "", None, demand, ""), LINK, DEVICE, power_w=2.0, images_per_s=2)
    # 9 kB at 1 kB/s, 1.8 kB at 0.5 kB/s, a tenth of it again and again; three times there and back.
    assert cost.link_s == pytest.approx((9 + 3.6) / 0.9 + 3 * 2 * 1.0)
    assert cost.encode_s == 10 / 2
    assert cost.train_s == 4000 / 1000 + 6 * 0.5
    assert cost.total_s == pytest.approx(14 + 6 + 5 + 7)
    assert (cost.encode_j, cost.train_j) == (2.0 * 5, 2.0 * 7)
    assert cost.radio_j == pytest.approx((9000 * 0.001 + 1800 * 0.002) / 0.9)
    assert cost.total_j == pytest.approx(10 + 14 + 14)


def test_the_encoder_does_as_many_multiply_adds_as_its_shape_says():
    vit = read_vit({"encoder": "vit_mae_patch8_64.aid"})
    assert (vit.depth, vit.width, vit.n_patches, vit.n_prefix) == (8, 192, 64, 1)
    assert vit.n_block_weights == 8 * 12 * 192**2
    assert vit.multiply_adds(32) == BUNDLED_MULTIPLY_ADDS
    matrices = 8 * 12 * 192**2 + 192 * 192
    others = 8 * (2 * 2 * 192 + (3 + 1 + 4 + 1) * 192) + 192 + 65 * 192 + 192 + 2 * 192
    assert vit.n_params == matrices + others
    four_bands = read_vit({"encoder": "vit_mae_patch8_64.aid", "bands": "4,3,2,8"})
    assert four_bands.patch_values == 4 * 64
    assert read_vit({"encoder": "resnet18"}) is None


def test_a_run_costs_what_its_ledger_says_until_it_reaches_the_accuracy(write_run):
    run = read_planned(write_run("ist", [0.1, 0.5, 0.7, 0.6, 0.8], strategy="ist"))
    way = measured_way(run, 0.7, link_bytes=False, n_round_trips=11)
    assert (way.name, way.round) == ("IST", 2)
    assert (way.demand.bytes_down, way.demand.bytes_up) == (10 + 2 * 1000, 30 + 2 * 3000)
    assert way.demand.n_round_trips == 11 * 3  # prepare, and two rounds
    assert way.demand.n_encoded == 100
    # Two rounds of three passes over 100 images, of slices of 16 neurons, in batches of 64.
    assert way.demand.train_multiply_adds == 2 * 3 * 300 * (192 + 10) * 16
    assert way.demand.n_steps == 2 * 3 * 2


def test_a_mask_that_is_drawn_anew_has_images_encoded_in_each_pass(write_run):
    run = read_planned(write_run("ist", [0.1, 0.5, 0.7], mask="random"))
    assert measured_way(run, 0.7, False, 1).demand.n_encoded == 100 * 2 * 3
    assert measured_way(run, 0.1, False, 1).demand.n_encoded == 100


def test_statistics_that_reach_the_accuracy_before_any_round_train_nothing(write_run):
    run = read_planned(write_run("ridge", [0.7], strategy="fed3r"))
    way = measured_way(run, 0.7, False, 1)
    assert (way.round, way.demand.train_multiply_adds, way.demand.n_steps) == (0, 0, 0)
    assert (way.demand.bytes_down, way.demand.bytes_up) == (10, 30)


def test_computed_ways_send_what_the_runs_figures_say(write_run):
    found = by_name(plan_of(write_run("avg", [0.1, 0.6, 0.7], strategy="fedavg"), accuracy=0.7))
    files, packed = found["raw image files to a server"], found["masked packed images to a server"]
    embeddings, vit = found["embeddings to a server"], found["FedAvg of the whole ViT"]
    assert files[0].demand == Demand(0, 100 * 7000, 3)
    assert packed[0].demand == Demand(0, 100 * 6000, 3)
    assert embeddings[0].demand == Demand(0, 100 * 192 * 4, 3, n_encoded=100)
    assert (files[1].total_j, files[1].encode_j) == (pytest.approx(700_000 * 0.002 / 0.9), 0)
    encode_s = 100 * BUNDLED_MULTIPLY_ADDS / PROFILES["pi-4"].multiply_adds_per_s
    assert embeddings[1].encode_s == pytest.approx(encode_s)
    # The FedAvg run takes two rounds of three passes.
    n_params = read_vit({"encoder": "vit_mae_patch8_64.aid"}).n_params
    assert vit[0].demand == Demand(
        bytes_down=2 * 4 * n_params,
        bytes_up=2 * 4 * n_params,
        n_round_trips=2 * 11,
        train_multiply_adds=2 * 3 * 100 * 3 * BUNDLED_MULTIPLY_ADDS,
        n_steps=2 * 3 * 2,
    )


def test_a_run_that_never_reaches_the_accuracy_says_how_far_it_came(write_run):
    plan = plan_of(
        write_run("avg", [0.1, 0.6, 0.55], strategy="fedavg"), write_run("ist", [0.7]), accuracy=0.7
    )
    way, cost = by_name(plan)["FedAvg of the classifier"]
    assert (way.demand, cost, way.note) == (None, None, "Its best accuracy is 60.0%.")
    assert plan_row(way, None)[1:] == ("run avg, not reached", *[""] * (len(HEADER) - 2))
    notes = plan_data([plan])["notes"]
    assert any(note.startswith("FedAvg of the whole ViT is left out") for note in notes)


def test_the_rounds_of_a_whole_vit_can_be_given(write_run):
    plan = plan_of(write_run("ist", [0.7]), accuracy=0.7, vit_rounds=9)
    way, _ = by_name(plan)["FedAvg of the whole ViT"]
    assert way.demand.n_round_trips == 9 * 11
    assert "9 rounds (as given) of 3 passes" in way.note


def test_the_accuracy_is_a_little_less_than_fedavgs_unless_it_is_given(write_run):
    runs = [
        read_planned(write_run(name, accuracies, strategy=strategy))
        for name, accuracies, strategy in [
            ("a", [0.9, 0.6], "fedavg"), ("b", [0.2, 0.8], "fedavg"), ("c", [0.95], "ist"),
        ]
    ]  # fmt: skip
    assert default_accuracy(runs) == pytest.approx(0.95 * 0.8)
    assert default_accuracy(runs[2:]) == pytest.approx(0.95 * runs[2].final_accuracy)


def test_bytes_are_those_of_the_link_only_where_all_ledgers_have_them(write_run):
    new, old = write_run("new", [0.1, 0.7], links=True), write_run("old", [0.1, 0.7])
    # Two messages each way to prepare and to train, each 5000 down and 700 up.
    demand = by_name(plan_of(new, accuracy=0.7))["IST"][0].demand
    assert (demand.bytes_down, demand.bytes_up) == (4 * 5000, 4 * 700)
    mixed = plan_of(new, old, accuracy=0.7)
    assert not mixed.link_bytes
    measured = [way.demand for way, _ in mixed.ways if way.run]
    assert [(d.bytes_down, d.bytes_up) for d in measured] == [(1010, 3030)] * 2


def test_a_link_whose_energy_nobody_published_has_no_total(write_run):
    plan = plan_of(write_run("ist", [0.7]), link=SILENT, accuracy=0.7)
    for way, cost in plan.ways:
        cells = dict(zip(HEADER, plan_row(way, cost), strict=True))
        assert cells["radio (J)"] == cells["in all (J)"] == "not published"
        assert cells["encoding (J)"] not in ("", "not published")
    notes = plan_data([plan])["links"]["silent"]["notes"]
    assert "What a radio of silent uses for a byte is not published." in notes


def test_what_a_link_forbids_stands_in_the_notes_and_in_its_time(write_run):
    path = write_run("ist", [0.7])
    link = replace(LINK, duty_cycle=0.1, quota_bytes=2e6, note="no TCP/IP")
    plan, free = plan_of(path, link=link, accuracy=0.5), plan_of(path, accuracy=0.5)
    # 30 bytes up take 0.06 s, a tenth of them twice, and nine times as long in pauses.
    pause_s = by_name(plan)["IST"][1].link_s - by_name(free)["IST"][1].link_s
    assert pause_s == pytest.approx(9 * 0.06 / 0.9)
    notes = " ".join(plan_data([plan])["links"]["slow"]["notes"])
    for text in ("for 10% of the time", "quota, both ways: 2.00 MB", "slow: no TCP/IP."):
        assert text in notes


def test_codecs_and_anchors_show_in_the_name_of_a_way(write_run):
    path = write_run("ist", [0.7], anchor="ridge", down_codec="int8", up_codec="int4")
    assert "IST, anchored, slices down in int8 and up in int4" in by_name(
        plan_of(path, accuracy=0.5)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "forest"}, r"'a' and 'b' differ in dataset \(\"beach\" and \"forest\"\)"),
        ({"mask_ratio": 0.75}, r"differ in mask-ratio \(0.5 and 0.75\)"),
        ({"partitioner": "dirichlet"}, "differ in partitioner"),
        ({"summary": {"clients": 4}}, r"differ in clients \(2.0 and 4.0\)"),
    ],
)
def test_runs_of_different_tasks_are_refused(write_run, changes, message):
    with pytest.raises(InputError, match=message):
        plan_of(write_run("a", [0.7]), write_run("b", [0.7], **changes), accuracy=0.5)


def test_settings_that_change_nothing_may_differ(write_run):
    alike = write_run("a", [0.7]), write_run("b", [0.7], partition_alpha=0.1, strategy="fedavg")
    assert len(plan_of(*alike, accuracy=0.5).ways) == 5
    skewed = [
        write_run(f"skewed-{alpha}", [0.7], partitioner="dirichlet", partition_alpha=alpha)
        for alpha in (0.1, 0.3)
    ]
    with pytest.raises(InputError, match="differ in partition-alpha"):
        plan_of(*skewed, accuracy=0.5)


def test_an_encoder_that_is_no_transformer_needs_a_measured_speed(write_run):
    path = write_run("cnn", [0.7], encoder="resnet18", encoder_weights="random", pooling="avg")
    with pytest.raises(InputError, match=r"'resnet18' computes is not known.*--images-per-s"):
        plan_of(path, accuracy=0.5)
    plan = plan_of(path, accuracy=0.5, images_per_s=4.0)
    assert by_name(plan)["IST"][1].encode_s == 100 / 4.0
    assert "FedAvg of the whole ViT" not in by_name(plan)


def test_every_device_has_a_speed_and_a_power(write_run):
    run, vit = read_planned(write_run("ist", [0.7])), Vit(1, 2, 4, 1, 3, 48, 100)
    assert set(POWER_W) == set(PROFILES)
    for device in PROFILES.values():
        # Two of four patches: embedding 2*3*2, three tokens through 48 weights, attention 2*9*2.
        assert estimate_encoding_speed(run, device, vit) == device.multiply_adds_per_s / (
            12 + 144 + 36
        )


def test_files_hold_what_the_table_shows(write_run, tmp_path):
    plan = plan_of(write_run("ist", [0.1, 0.7]), write_run("avg", [0.1], strategy="fedavg"),
                   accuracy=0.7)  # fmt: skip
    write_plans([plan, replace(plan, link=replace(LINK, name="other"))], tmp_path)
    found = json.loads((tmp_path / "plan.json").read_text())
    ways = found["links"]["slow"]["ways"]
    keys = "bytes_down bytes_up encode_s train_s link_s total_s encode_j train_j radio_j total_j"
    assert [[way[key] for key in keys.split()] for way in ways] == [
        [getattr(way.demand, key, None) for key in keys.split()[:2]]
        + [getattr(cost, key, None) for key in keys.split()[2:]]
        for way, cost in plan.ways
    ]
    assert {way["way"]: way["reached"] for way in ways if way["run"]} == {
        "IST": True,
        "FedAvg of the classifier": False,
    }
    assert all(way["reached"] is None for way in ways if not way["run"])
    with (tmp_path / "plan.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["link"] for line in lines] == ["slow"] * len(ways) + ["other"] * len(ways)
    assert [line["total_s"] for line in lines[: len(ways)]] == [
        "" if way["total_s"] is None else str(way["total_s"]) for way in ways
    ]


def test_generated_images_have_no_files_to_send(write_run):
    plan = plan_of(write_run("ist", [0.7], summary={"image_bytes_original": 0.0}), accuracy=0.5)
    assert "raw image files to a server" not in by_name(plan)
    assert "Raw image files are left out" in render_plans([plan])


def test_plans_for_a_terminal_fit_it_and_tell_the_same_bytes(write_run):
    name = "a-run-with-a-name-" + "that-goes-on-" * 5
    plan = plan_of(write_run(name, [0.7]), accuracy=0.5)
    shown = show_plans([plan])
    assert max(map(len, shown.splitlines())) <= 100
    (ist,) = (line for line in shown.splitlines() if line.startswith("IST"))
    demand = by_name(plan)["IST"][0].demand
    assert readable_bytes(demand.bytes_down) in ist
    assert readable_bytes(demand.bytes_up) in ist


def test_the_command_prints_a_table_for_each_link_and_writes_files(write_run, tmp_path):
    link = next(iter(read_links()))
    folders = [str(write_run("ist", [0.1, 0.7])), str(write_run("avg", [0.7], strategy="fedavg"))]
    out = tmp_path / "new" / "plan"
    done = CliRunner().invoke(
        cli, ["plan", *folders, "--link", link, "--device", "pi-zero", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"66.5% on {link}, pi-zero")
    assert {path.name for path in out.iterdir()} == {"plan.csv", "plan.json"}
    every = CliRunner().invoke(cli, ["plan", *folders, "--markdown"])
    assert every.output.count("\n## 66.5% on ") == len(read_links()) - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--link", "pigeon"], "Unknown link 'pigeon'"),
        (["--device", "cray"], "Unknown device 'cray'"),
        (["--accuracy", "75"], r"--accuracy 75 is not possible: give a number in \(0, 1\]"),
        (["--images-per-s", "0"], "--images-per-s 0 is not possible"),
        (["--round-trips", "-1"], "--round-trips -1 is not possible"),
    ],
)
def test_what_is_not_possible_is_one_sentence(write_run, options, message):
    path = str(write_run("ist", [0.7]))
    with pytest.raises(InputError, match=message):
        CliRunner().invoke(cli, ["plan", path, *options], catch_exceptions=False)


def test_a_folder_that_is_no_finished_run_is_one_sentence(write_run, tmp_path):
    with pytest.raises(InputError, match=r"no readable summary\.json"):
        read_planned(tmp_path)
    path = write_run("ist", [0.7])
    (path / "ledger.csv").write_text("round,node\n0,1\n")
    with pytest.raises(InputError, match=r"ledger\.csv' is damaged: its first line lacks"):
        read_planned(path)
    (path / "summary.json").write_text("{}")
    with pytest.raises(InputError):
        read_planned(path)
