"""The relay runs with the Flower that it was tried with, and with no other."""

from importlib.metadata import version

import pytest

from clients.relay import flower
from fed_ist.errors import InputError


def test_the_installed_flower_is_one_that_was_tried():
    assert version("flwr") in flower.TRIED
    flower.require_tried()


def test_another_flower_is_refused_in_a_sentence_that_names_those_that_were_tried(monkeypatch):
    monkeypatch.setattr(flower, "version", lambda _: "1.43.0")
    with pytest.raises(InputError, match=r"flwr 1\.43\.0 is installed.*flwr 1\.42\.0") as refused:
        flower.require_tried()
    assert str(refused.value).count("\n") == 0


def test_each_object_is_named_once_and_parents_come_first():
    tree = flower.ObjectTree(object_id="a")
    tree.children.add(object_id="b").children.add(object_id="c")
    tree.children.add(object_id="c")
    assert flower.object_ids([tree]) == ["a", "b", "c"]
