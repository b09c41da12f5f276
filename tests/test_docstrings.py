"""Docstrings: each public name has one, arrays have shapes, and no riddles stand in them.

The rules are read from the source, so that no module need be imported.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from rooms import ORDER, modules, room_of

ROOMS = tuple(room for line in ORDER for room in line)
RIDDLES = re.compile(r"\b(lest|as of|so many|so much|calls so)\b")
# A dtype, a shape such as (n,), (H, W, C) or (num_classes, d+1), or one of the words themselves.
NUMBER = r"\w+(?: ?[*+/-] ?\w+)*"
SHAPE = re.compile(
    rf"\b(float|uint|int)\d+\b|\bbool\b|\bshapes?\b|\bdtypes?\b|\({NUMBER},(?: {NUMBER},?)*\)"
)

MODULES = modules()
Function = ast.FunctionDef | ast.AsyncFunctionDef


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def is_array(annotation: ast.expr | None, names: frozenset[str]) -> bool:
    """Whether an annotation holds a numpy array, by itself or under one of these names."""
    if annotation is None:
        return False
    for node in ast.walk(annotation):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            with suppress(SyntaxError):  # a text that is no type
                if is_array(ast.parse(node.value, mode="eval").body, names):
                    return True
        elif isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in names:
                return True
    return False


@cache
def array_names(module: str) -> frozenset[str]:
    """The names by which a module calls types that hold arrays: its own aliases and others'."""
    found = {"NDArray", "ndarray"}
    tree = parse(MODULES[module])
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            theirs = array_names(node.module)
            found |= {a.asname or a.name for a in node.names if a.name in theirs}
    for node in tree.body:
        target, value = None, None
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp):
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
            target, value = node.target, node.value
        is_function = value is not None and ast.unparse(value).startswith("Callable")
        if isinstance(target, ast.Name) and not is_function and is_array(value, frozenset(found)):
            found.add(target.id)
    return frozenset(found)


def is_explained_by_base(base_names: list[str], doc: str) -> bool:
    """Whether methods may have no docstring: a base has it, or a Protocol's class says it all."""
    return bool(base_names) and ("Protocol" not in base_names or bool(doc))


def problems(tree: ast.Module, names: frozenset[str]) -> Iterator[str]:
    """What is missing in the docstrings of a module; names: of types that hold arrays."""
    if tree.body and not ast.get_docstring(tree):
        yield "the module has no docstring"
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            doc = ast.get_docstring(node)
            if not doc:
                yield f"{node.name} has no docstring"
            if isinstance(node, ast.ClassDef):
                yield from _problems_of_class(node, names)
            elif doc:
                yield from _problems_of_arrays(node, names, node.name, doc)


def _problems_of_class(node: ast.ClassDef, names: frozenset[str]) -> Iterator[str]:
    told = ast.get_docstring(node) or ""
    bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
    fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
    public = [f for f in fields if not ast.unparse(f.target).startswith("_")]
    if any(is_array(f.annotation, names) for f in public) and not SHAPE.search(told):
        yield f"{node.name} has arrays without shape or dtype"
    for method in node.body:
        if isinstance(method, Function) and not method.name.startswith("_"):
            name, doc = f"{node.name}.{method.name}", ast.get_docstring(method)
            if doc:
                yield from _problems_of_arrays(method, names, name, doc)
            elif not is_explained_by_base(bases, told):
                yield f"{name} has no docstring"


def _problems_of_arrays(
    node: Function, names: frozenset[str], name: str, doc: str
) -> Iterator[str]:
    given = node.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    annotations = [argument.annotation for argument in arguments]
    if any(is_array(a, names) for a in (*annotations, node.returns)) and not SHAPE.search(doc):
        yield f"{name} has arrays without shape or dtype"


def riddles(source: str) -> Iterator[str]:
    """Riddle words in the docstrings and comments of a module, with their lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | Function):
            doc = ast.get_docstring(node) or ""
            yield from (f"'{w}' in a docstring" for w in RIDDLES.findall(" ".join(doc.split())))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from (f"'{w}' in line {token.start[0]}" for w in RIDDLES.findall(token.string))


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_say_what_a_name_is_and_which_shapes_arrays_have(room):
    found = [module for module in MODULES if room_of(module) == room]
    assert found
    for module in found:
        path = MODULES[module]
        assert not list(problems(parse(path), array_names(module))), path
        assert not list(riddles(path.read_text(encoding="utf-8"))), path


def test_types_that_hold_arrays_are_known_by_all_their_names():
    assert {"Params", "NDArray"} <= array_names("fed_ist.classifier.slices")
    assert {"Examples", "Array"} <= array_names("fed_ist.training.local")
    assert "Runner" not in array_names("fed_ist.encoder.frozen")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('"""A."""\ndef f() -> int: ...', ["f has no docstring"]),
        ('"""A."""\ndef _f() -> int: ...', []),
        ("def _f() -> int: ...", ["the module has no docstring"]),
        (
            '"""A."""\ndef f(x: NDArray[np.int64]) -> int:\n    """A sum."""',
            ["f has arrays without shape or dtype"],
        ),
        ('"""A."""\ndef f(x: NDArray[np.int64]) -> int:\n    """A sum; x: (n, d+1)."""', []),
        ('"""A."""\ndef f() -> "tuple[int, np.ndarray]":\n    """Both, bool (H, W)."""', []),
        (
            '"""A."""\nclass A:\n    """B."""\n    def f(self) -> int: ...',
            ["A.f has no docstring"],
        ),
        ('"""A."""\nclass A(Base):\n    """B."""\n    def f(self) -> int: ...', []),
        ('"""A."""\nclass A(Protocol):\n    """B."""\n    def f(self) -> int: ...', []),
        (
            '"""A."""\nclass A:\n    """B (Doe et al. 2022, page 1)."""\n    x: NDArray[np.int64]',
            ["A has arrays without shape or dtype"],
        ),
    ],
)
def test_the_check_sees_what_is_missing(source, found):
    assert list(problems(ast.parse(source), frozenset({"NDArray", "ndarray"}))) == found


def test_the_check_sees_riddles_in_docstrings_and_comments_and_not_in_messages():
    source = '"""Kept, lest it\nbe lost; as\nof `f`."""\nx = "as of"  # so many bytes\n'
    assert list(riddles(source)) == [
        "'lest' in a docstring",
        "'as of' in a docstring",
        "'so many' in line 4",
    ]
