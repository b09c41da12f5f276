"""Every bad setting is one sentence that names the key, the value and what is allowed."""

import tomllib

import pytest
from conftest import ROOT

from fed_ist.config import (
    CLOSED_FORMS,
    GROUPED,
    NEEDS,
    STRATEGIES,
    kebab,
    parse_config,
    parse_setting,
    read_defaults,
    require_used,
)
from fed_ist.encoder_spec import BUNDLED_ENCODER, BUNDLED_ENCODERS
from fed_ist.errors import InputError

BAD = {
    "mask_ratio=1.0": r"mask-ratio = 1\.0 is not possible: give a number in \[0, 1\)",
    "mask_ratio=-0.1": r"mask-ratio = -0\.1",
    "mask_ratio='half'": r"mask-ratio = 'half' is not possible: give a number",
    "mask='radnom'": r"Unknown mask 'radnom'\. Choose from: block, fixed, grid, random, saliency",
    "strategy='fedsgd'": r"Unknown strategy 'fedsgd'\. Choose from: fed3r, fedadam, fedavg,",
    "codec='png'": r"Unknown codec 'png'\. Choose from: jpeg, raw, webp",
    "pooling='max'": r"Unknown pooling 'max'",
    "optimizer='lion'": r"Unknown optimizer 'lion'\. Choose from: adam, sgd",
    "partitioner='odd'": r"Unknown partitioner 'odd'",
    "hidden_dim=0": r"hidden-dim = 0 is not possible: give a whole number of at least 1",
    "hidden_dim=2.5": r"hidden-dim = 2\.5 is not possible: give a whole number",
    "num_rounds=true": r"num-rounds = True is not possible: give a whole number",
    "learning_rate=0": r"learning-rate = 0\.0 is not possible: give a number above 0",
    "learning_rate=nan": r"learning-rate = nan",
    "learning_rate_schedule='step'": r"schedule 'step'\. Choose from: constant, cosine",
    "fraction_nodes=1.5": r"fraction-nodes = 1\.5 is not possible: give a number in \(0, 1\]",
    "groups=513": r"hidden-dim = 512 is smaller than groups = 513",
    "num_round=3": r"Unknown config key 'num-round'\. Did you mean 'num-rounds'\?",
    "local_epochs=0": r"leave nothing to train",
    "name='a/b'": r"name = 'a/b' is not possible: give one name of at most 100 bytes, without / ",
    "results_dir='results'": r"results-dir = 'results' is not possible: give an absolute path",
    "bands='4,,2'": r"bands = '4,,2' is not possible: give names or numbers of bands",
    "band_range='0:1'": r"band-range = '0:1' is of no use without bands",
    "partitioner='column'": r"needs partition-column",
    "anchor='lasso'": r"Unknown anchor 'lasso'\. Choose from: inputs, none, ridge",
    "norm='group'": r"Unknown norm 'group'",
    "anchor_bytes=-1": r"anchor-bytes = -1 is not possible: give a whole number of at least 0",
    "anchor_bytes=1000": r"anchor-bytes = 1000 needs anchor = 'ridge', or strategy = 'fed3r'",
    "anchor_scale=0": r"anchor-scale = 0\.0 is not possible: give a number above 0",
    "statistics_noise=-1": r"statistics-noise = -1\.0 is not possible",
    "statistics_noise=0.5": r"statistics-noise = 0\.5 needs anchor",
    "server_learning_rate=-1": r"server-learning-rate = -1\.0 is not possible",
    "server_momentum=1": r"server-momentum = 1\.0 is not possible: give a number in \[0, 1\)",
    "test_share=0": r"test-share = 0\.0 is not possible: give a number between 0 and 1",
    "test_share=1": r"test-share = 1\.0",
    "dealing='cyclic'": r"Unknown dealing 'cyclic'\. Choose from: random, rotating",
    "down_codec='int2'": r"Unknown down-codec 'int2'\. Choose from: bf16, fp16, fp32, int4, int8",
    "up_codec='zip'": r"Unknown up-codec 'zip'",
    "reply='all'": r"Unknown reply 'all'\. Choose from: slice, update",
    "anchor='ridge' statistics_codec='int8'": r"Unknown statistics-codec 'int8'\. .* fp16, fp32",
    "max_bytes_per_node=-1": r"max-bytes-per-node = -1 is not possible: give a whole number of",
    "max_bytes_per_node_round=-1": r"max-bytes-per-node-round = -1 is not possible",
    "upload_share=0": r"upload-share = 0\.0 is not possible: give a number in \(0, 1\]",
    "upload_share=1.1": r"upload-share = 1\.1",
    "capacities=2": r"capacities = '2' is not possible: give numbers in \(0, 1\], such as 1,0\.5",
    "capacities='a,b'": r"capacities = 'a,b' is not possible",
    "capacities='1,0'": r"capacities = '1,0' is not possible",
    "capacities='0.5,'": r"capacities = '0\.5,' is not possible",
    "capacities=''": r"capacities = '' is not possible",
    "capacities='nan'": r"capacities = 'nan' is not possible",
    # Settings that are possible, but not together.
    "strategy='topk' norm='batch'": r"norm = 'batch' does not go with changes that are sent",
    "reply='update' norm='batch'": r"norm = 'batch' does not go with changes that are sent",
    "up_codec='int8' norm='batch'": r"norm = 'batch' does not go with .* nor with int4 or int8",
    "down_codec='int4' norm='batch'": r"norm = 'batch' does not go with .* nor with int4 or int8",
    "strategy='topk' up_codec='int8'": r"strategy = 'topk' has a way of its own to send changes",
    "strategy='topk' reply='update'": r"strategy = 'topk' has a way of its own to send changes",
    "statistics_codec='fp16'": r"statistics-codec = 'fp16' is of no use without sums",
    "strategy='fedpft' statistics_codec='fp16'": r"statistics-codec = 'fp16' is of no use",
    "anchor='inputs' anchor_bytes=1000": r"anchor-bytes = 1000 needs anchor = 'ridge'",
    "strategy='fedpft' statistics_noise=1": r"statistics-noise = 1\.0 needs anchor",
    "strategy='fedncm' statistics_noise=1": r"statistics-noise = 1\.0 needs anchor",
}
BAD |= {
    f"strategy='{name}' groups=4": rf"groups = 4 does not go with strategy = '{name}'"
    for name in sorted(set(STRATEGIES) - set(GROUPED))
}
BAD |= {
    f"strategy='{name}' anchor='ridge'": rf"anchor = 'ridge' does not go with .* '{name}'"
    for name in CLOSED_FORMS
}


@pytest.mark.parametrize("settings", BAD)
def test_a_bad_setting_is_refused_in_one_sentence(settings):
    values = read_defaults(ROOT / "pyproject.toml")
    values |= dict(parse_setting(setting) for setting in settings.split())
    with pytest.raises(InputError, match=BAD[settings]) as caught:
        parse_config(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_possible_as_it_comes(name, make_config):
    assert make_config(strategy=name).strategy == name


@pytest.mark.parametrize(
    ("text", "levels"),
    [("1", (1,)), ("0.25", (0.25,)), ("1,0.5", (1, 0.5)), (" 1 , 0.5,0.5", (1, 0.5, 0.5))],
)
def test_capacities_are_read_in_their_order(text, levels, make_config):
    assert make_config(capacities=text).capacity_levels == levels


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"server_momentum": 0.5}, r"server-momentum = 0\.5 is of no use with strategy = 'ist'"),
        ({"strategy": "fedavg", "dealing": "rotating"}, "or use strategy = ist"),
        ({"upload_share": 0.1}, "Leave it out, or use strategy = topk"),
        ({"strategy": "fed3r", "up_codec": "int8"}, "or use strategy = fedadam or fedavg"),
        ({"strategy": "fedavg", "capacities": "1,0.5"}, "or use strategy = feddropout or fedrolex"),
        ({"partition_alpha": 0.3}, "use partitioner = dirichlet"),
        ({"anchor_scale": 2.0}, "use anchor = ridge"),
    ],
)
def test_a_key_that_changes_nothing_is_refused_where_a_user_chose_it(changes, match, make_config):
    config = make_config(**changes)
    chosen = [kebab(key) for key in changes]
    with pytest.raises(InputError, match=match):
        require_used(config, chosen)
    require_used(config, ["seed", "strategy"])  # those that it has from a preset may stay


def test_every_key_that_needs_another_is_one_and_can_be_used(make_config):
    keys = make_config().to_mapping()
    for key, (other, useful) in NEEDS.items():
        assert {key, other} <= set(keys)
        for value in useful:
            changes = {other: value, "partition_column": "station", "groups": 1}
            require_used(make_config(**changes), [key])


def test_the_encoder_taken_on_trust_is_the_bundled_one_and_the_default():
    assert BUNDLED_ENCODER in BUNDLED_ENCODERS
    assert read_defaults(ROOT / "pyproject.toml")["encoder"] == BUNDLED_ENCODER


def test_a_missing_key_is_named():
    values = read_defaults(ROOT / "pyproject.toml")
    del values["seed"]
    with pytest.raises(InputError, match="Config keys are missing: seed"):
        parse_config(values)


def test_the_written_config_is_read_back_the_same(make_config):
    config = make_config(dataset='a "quoted" \\ name', mask_ratio=0.75, learning_rate=1e-5)
    assert parse_config(tomllib.loads(config.to_toml())) == config


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("mask-ratio=0.75", "mask-ratio", 0.75),
        ("mask_ratio = 0.75", "mask-ratio", 0.75),
        ("dataset=/data/a=b.parquet", "dataset", "/data/a=b.parquet"),
        ("dataset='scenes'", "dataset", "scenes"),
        ("rescale=false", "rescale", False),
        ("name=1.2.3", "name", "1.2.3"),
    ],
)
def test_settings_are_read_as_toml_or_as_text(text, key, value):
    assert parse_setting(text) == (key, value)


def test_every_key_of_the_presets_is_known_and_every_preset_is_possible():
    defaults = read_defaults(ROOT / "pyproject.toml")
    presets = sorted((ROOT / "sims" / "configs").glob("*.toml"))
    assert len(presets) >= 4
    for path in presets:
        parse_config(defaults | tomllib.loads(path.read_text()))


def test_the_readme_explains_every_key():
    readme = (ROOT / "README.md").read_text()
    assert [key for key in read_defaults(ROOT / "pyproject.toml") if f"`{key}`" not in readme] == []


@pytest.mark.parametrize(
    "name",
    [".", "..", "...", "a/b", "/a", "a\\b", "a\0b", "a\nb", "\x1b[2J", "-x", " a", "a ", "é" * 51],
)
def test_a_run_is_not_named_so_that_its_folder_is_another_or_cannot_be_named(make_config, name):
    with pytest.raises(InputError, match=r"name = .* is not possible"):
        make_config(name=name)


@pytest.mark.parametrize("name", ["", "a", "..a", "a.b", ".hidden", "field 3", "é" * 50, "日本"])
def test_other_names_of_runs_are_taken(make_config, name):
    assert make_config(name=name).name == name
