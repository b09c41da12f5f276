"""Nodes and server agree on classes by name, whatever each has and in whatever order."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.node import unknown_classes
from fed_ist.datasets.folders import folder_source
from fed_ist.images.source import ImageSource
from fed_ist.traffic import protocol

NAMES = st.lists(st.text(min_size=1), unique=True, max_size=6).map(tuple)


def source(class_names, labels):
    def load(i, min_px=None):
        pytest.fail("no image is needed for its label")

    labels = np.array(labels, dtype=np.int64)
    return ImageSource(tuple(class_names), labels, load, "signature", load, str)


@given(st.data(), NAMES)
def test_an_image_keeps_its_class_by_name_and_unknown_ones_get_none(data, servers):
    nodes = data.draw(st.permutations([*servers, "x" * 9]).flatmap(st.permutations))
    labels = data.draw(st.lists(st.integers(0, len(nodes) - 1), max_size=20))
    own = source(nodes, labels)
    relabelled = own.relabel(servers)
    for before, after in zip(labels, relabelled.labels, strict=True):
        name = nodes[before]
        assert after == (servers.index(name) if name in servers else -1)
    unknown = unknown_classes(own, servers)
    assert sum(unknown.values()) == np.count_nonzero(relabelled.labels < 0)
    assert set(unknown) == {nodes[label] for label in labels} - set(servers)


@given(st.permutations(range(8)), NAMES)
def test_labels_do_not_depend_on_the_order_in_which_classes_are_listed(order, servers):
    names = [f"class {i}" for i in range(8)]
    by_name = dict.fromkeys(names)
    for listed in (names, [names[i] for i in order]):
        found = source(listed, range(8)).relabel((*servers, *names[:5])).labels.tolist()
        labels = dict(zip(listed, found, strict=True))
        by_name = {name: labels[name] if by_name[name] is None else by_name[name] for name in names}
        assert labels == by_name


def test_folders_with_other_subsets_of_classes_agree_with_the_server(image_folder, tmp_path):
    servers = ("forest", "beach", "car-park")
    for i, classes in enumerate((("beach",), ("farmland", "forest"), ("car-park", "beach"))):
        for name in classes:
            shutil.copytree(image_folder / name, tmp_path / str(i) / name)
        found = folder_source(tmp_path / str(i))
        known = [name for name in classes if name in servers]
        labels = found.relabel(servers).labels
        assert set(labels[labels >= 0]) == {servers.index(name) for name in known}


def test_a_node_names_the_classes_that_the_server_does_not_know(federate, image_folder, caplog):
    federation = federate(
        [5],
        classes=("forest", "beach", "glacier"),
        node_config={"data-path": str(image_folder)},
        min_nodes=1,
    ).prepare()
    (node,) = federation.prepared.values()
    assert node.counts[protocol.UNKNOWN_CLASSES] == 24
    assert "car-park (12 images), farmland (12 images)" in caplog.text
    examples = federation.examples(5)
    assert set(examples.labels) == {0, 1}
    assert len(examples.labels) == node.counts[protocol.NUM_EXAMPLES] == 24
