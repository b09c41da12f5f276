"""Every bad setting is one sentence that names the key, the value and what is allowed."""

import math
import tomllib

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_ist.config.derive import capacity_levels
from fed_ist.config.limits import NOUNS, above, at_least, between, one_of, within
from fed_ist.config.methods import CLOSED_FORMS, GROUPED, STRATEGIES
from fed_ist.config.parsing import parse_config, require_used
from fed_ist.config.run_config import NEEDS, ROWS, TYPES
from fed_ist.config.toml import kebab, parse_setting, read_defaults, write_toml
from fed_ist.encoder.spec import BUNDLED_ENCODER, BUNDLED_ENCODERS
from fed_ist.errors import InputError
from fed_ist.printable import printable
from fed_ist.training.boards import PROFILES

DEFAULTS = read_defaults(ROOT / "pyproject.toml")
BAD = {
    "mask_ratio=1.0": r"mask-ratio = 1\.0 is not possible: give a number in \[0, 1\)",
    "mask_ratio='half'": r"mask-ratio = 'half' is not possible: give a number",
    "mask='radnom'": r"Unknown mask 'radnom'\. Choose from: .*\bgrid\b",
    "strategy='fedsgd'": r"Unknown strategy 'fedsgd'\. Choose from: fed3r, fedadam, fedavg,",
    "codec='png'": r"Unknown codec 'png'\. Choose from: jpeg, raw, webp",
    "hidden_dim=0": r"hidden-dim = 0 is not possible: give a whole number in \[1, 100000\]",
    "hidden_dim=2.5": r"hidden-dim = 2\.5 is not possible: give a whole number",
    "num_rounds=true": r"num-rounds = True is not possible: give a whole number",
    "learning_rate=0": r"learning-rate = 0\.0 is not possible: give a number above 0",
    "learning_rate_schedule='step'": r"schedule 'step'\. Choose from: constant, cosine",
    "fraction_nodes=1.5": r"fraction-nodes = 1\.5 is not possible: give a number in \(0, 1\]",
    "num_round=3": r"Unknown config key 'num-round'\. Did you mean 'num-rounds'\?",
    "name='a/b'": r"name = 'a/b' is not possible: give one name of at most 100 bytes, without / ",
    "results_dir='results'": r"results-dir = 'results' is not possible: give an absolute path",
    "bands='4,,2'": r"bands = '4,,2' is not possible: give names or numbers of bands",
    "value_range='9:1'": r"value-range = '9:1' is not possible: give the values that become 0 and",
    "max_weight=0.5": r"max-weight = 0\.5 is not possible: give 0 for no bound, or a number of at",
    "test_share=1": r"test-share = 1\.0 is not possible: give a number between 0 and 1",
    "capacities=2": r"capacities = '2' is not possible: give numbers in \(0, 1\], such as 1,0\.5",
    "capacities='0.5,'": r"capacities = '0\.5,' is not possible",
    "capacities='nan'": r"capacities = 'nan' is not possible",
    # Settings that are possible, but not together.
    "groups=513": r"hidden-dim = 512 is smaller than groups = 513",
    "local_epochs=0": r"leave nothing to train",
    "resume=true": r"resume = True is not possible: give true only with a run's name",
    "band_range='0:1'": r"band-range = '0:1' is of no use without bands",
    "bands='4' value_range='0:1'": r"value-range = '0:1' is for images without bands",
    "partitioner='column'": r"needs partition-column",
    "anchor_bytes=1000": r"anchor-bytes = 1000 needs anchor = 'ridge', or strategy = 'fed3r'",
    "statistics_noise=0.5": r"statistics-noise = 0\.5 needs anchor",
    "strategy='topk' norm='batch'": r"norm = 'batch' does not go with changes that are sent",
    "reply='update' norm='batch'": r"norm = 'batch' does not go with changes that are sent",
    "up_codec='int8' norm='batch'": r"norm = 'batch' does not go with .* nor with int8, int4",
    "hidden_dim=99999999999": r"hidden-dim = 99999999999 is not possible: give a whole number in",
    "random_features=99999999999": r"random-features = 99999999999 is not possible",
    "hidden_dim=90000 hidden_layers=3": r"makes a classifier of 1.6e\+10 weights: give at most 5e",
    "up_codec='eden1'": r"up-codec = 'eden1' is too coarse for weights.* Set reply = 'update'",
    "down_codec='eden1'": r"Unknown down-codec 'eden1'. Choose from: bf16, eden2",
    "down_codec='int4' norm='batch'": r"norm = 'batch' does not go with .* nor with int8, int4",
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
    values = DEFAULTS | dict(parse_setting(setting) for setting in settings.split())
    with pytest.raises(InputError, match=BAD[settings]) as caught:
        parse_config(values)
    assert "\n" not in str(caught.value)


TEXTS = st.text("aé0.,:/\\ -'\n\x1b")
VALUES = {int: st.integers(), float: st.floats(), str: TEXTS}
OF_ANOTHER_TYPE = {
    bool: TEXTS | st.integers(),
    int: TEXTS | st.floats() | st.booleans(),
    float: TEXTS | st.booleans(),
    str: st.booleans() | st.none() | st.lists(st.integers()),
}


def refusal(key, value):
    """The one sentence by which a value of a key is refused, if it is."""
    try:
        parse_config(DEFAULTS | {key: value})
    except InputError as error:
        assert len(str(error).splitlines()) == 1
        return str(error)
    return ""


def is_allowed(key, value):
    try:
        ROWS[key].limit.require(key, value)
    except InputError:
        return False
    return True


@pytest.mark.parametrize("key", [key for key, row in ROWS.items() if row.limit])
@settings(max_examples=25)
@given(data=st.data())
def test_a_value_beyond_the_limit_of_its_key_is_named_with_the_key_and_what_is_allowed(key, data):
    value = data.draw(VALUES[TYPES[key]].filter(lambda value: not is_allowed(key, value)))
    said, limit = refusal(key, value), ROWS[key].limit
    if key == "devices":  # of which it names the one that is unknown
        assert "device '" in said and all(name in said for name in PROFILES)
    else:
        assert key in said and (repr(value) in said or f"'{printable(value)}'" in said)
        assert all(name in said for name in limit.choices) if limit.choices else ": give " in said


@pytest.mark.parametrize("key", TYPES)
@settings(max_examples=25)
@given(data=st.data())
def test_a_value_of_another_type_is_named_with_the_key_and_the_type(key, data):
    value = data.draw(OF_ANOTHER_TYPE[TYPES[key]])
    assert refusal(key, value) == f"{key} = {value!r} is not possible: give {NOUNS[TYPES[key]]}."


@pytest.mark.parametrize(
    ("limit", "allowed", "refused"),
    [
        (at_least(1), (1, 2, 10**9), (0, -1)),
        (at_least(0), (0.0, 0.5), (-0.1, math.inf, math.nan)),
        (above(0), (1e-9, 1e9), (0.0, -1.0, math.inf, math.nan)),
        (between(0, 1), (0.5,), (0.0, 1.0, -1.0, math.nan)),
        (within("[0, 1)"), (0.0, 0.5), (1.0, -0.1, math.nan)),
        (within("(0, 1]"), (0.5, 1.0), (0.0, 1.1, math.inf)),
        (within("[0, 0.5]"), (0.0, 0.5), (-0.1, 0.6)),
        (one_of(("a", "b")), ("a", "b"), ("", "A", "ab")),
    ],
)
def test_a_limit_holds_at_its_ends(limit, allowed, refused):
    for value in allowed:
        limit.require("key", value)
    for value in refused:
        with pytest.raises(InputError, match="key"):
            limit.require("key", value)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_possible_as_it_comes(name, make_config):
    assert make_config(strategy=name).strategy == name


@pytest.mark.parametrize(
    ("text", "levels"),
    [("1", (1,)), ("0.25", (0.25,)), ("1,0.5", (1, 0.5)), (" 1 , 0.5,0.5", (1, 0.5, 0.5))],
)
def test_capacities_are_read_in_their_order(text, levels, make_config):
    assert capacity_levels(make_config(capacities=text)) == levels


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"server_momentum": 0.5}, r"server-momentum = 0\.5 is of no use with strategy = 'ist'"),
        ({"strategy": "fedavg", "dealing": "rotating"}, "or use strategy = ist"),
        ({"upload_share": 0.1}, "Leave it out, or use strategy = topk"),
        ({"strategy": "fed3r", "up_codec": "int8"}, "or use strategy = fedadam or fedavg"),
        ({"strategy": "fedavg", "capacities": "1,0.5"}, "or use strategy = feddropout or fedrolex"),
        ({"partition_alpha": 0.3}, "use partitioner = dirichlet"),
        ({"anchor_scale": 2.0}, "use anchor = means or ridge"),
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
    assert DEFAULTS["encoder"] == BUNDLED_ENCODER


def test_a_missing_key_is_named():
    values = {key: value for key, value in DEFAULTS.items() if key != "seed"}
    with pytest.raises(InputError, match="Config keys are missing: seed"):
        parse_config(values)


def test_the_written_config_is_read_back_the_same(make_config):
    config = make_config(dataset='a "quoted" \\ name', mask_ratio=0.75, learning_rate=1e-5)
    assert parse_config(tomllib.loads(write_toml(config.to_mapping()))) == config


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
    presets = sorted((ROOT / "sims" / "configs").glob("*.toml"))
    assert len(presets) >= 4
    for path in presets:
        parse_config(DEFAULTS | tomllib.loads(path.read_text()))


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
