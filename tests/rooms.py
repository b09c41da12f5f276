"""Which room imports which: `python -m tests.rooms` prints it, and tests hold that none goes up.

A room is a package of `ORDER`; what lies directly in `fed_ist` or `sims` is a room as well. Rooms
on one line of `ORDER` do not import each other, and each imports from lines above its own alone.
"""

import ast
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ORDER = (
    ("fed_ist",),  # errors, randomness, words: what everything needs
    ("fed_ist.files",),  # files that are whole, private, sealed, cached
    ("fed_ist.classifier",),  # what is trained, its slices, and how they are merged
    # Closed forms of the classifier, from sums over all nodes. A room of its own, as nothing in it
    # trains, and most of it is statistics.
    ("fed_ist.statistics",),
    ("fed_ist.images",),  # what one image is: decoding, bands, masks, packing
    ("fed_ist.traffic",),  # what crosses a link, and what it costs
    # What many images are: folders, tables, splits, partitions. Together with `images` it would be
    # a room of almost thirty modules.
    ("fed_ist.datasets",),
    ("fed_ist.encoder",),  # frozen, on visible patches
    ("fed_ist.training", "fed_ist.pretraining"),
    ("fed_ist.benchmarks",),  # of this machine alone; those of federations are in sims
    ("fed_ist.config",),  # nothing above this line knows what a run's settings are called
    ("fed_ist.runs",),  # the folder of a run
    ("fed_ist.launch",),  # processes of Flower
    ("fed_ist.planning", "fed_ist.deploy", "strategies.core", "clients"),
    ("fed_ist.relay",),  # one lasting connection of a device; nothing of Flower
    ("clients.relay",),  # its end on the device, before Flower's SuperNode
    ("fed_ist.reports", "strategies"),  # reports of a run; its methods
    ("fed_ist.comparisons",),  # of many runs
    ("fed_ist.api",),  # what Python users call
    ("fed_ist.cli",),
    ("sims",),
    ("sims.relay",),  # the server's end of devices' connections, before Flower's SuperLink
    ("sims.experiments", "sims.benchmarks"),
    ("sims.wires",),  # in network namespaces
)
LINE = {room: line for line, rooms in enumerate(ORDER) for room in rooms}
PACKAGES = ("fed_ist", "strategies", "clients", "sims")

Graph = Mapping[str, frozenset[str]]  # module -> what it imports, as `imports` finds it


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of ours, packages included."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: Iterable[str]) -> frozenset[str]:
    """Modules that a file imports anywhere in it, also in functions and for types alone.

    known: our own modules; of `from package import module` the module is named.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in known else str(node.module))
    return frozenset(found)


def graph() -> Graph:
    """What each of our modules imports."""
    found = modules()
    return {name: imports(path, found) for name, path in found.items()}


def room_of(module: str) -> str:
    """The innermost room of `ORDER` that a module lies in.

    Python looks for the command of `python -m fed_ist` in `fed_ist` itself.
    """
    if module == "fed_ist.__main__":
        return "fed_ist.cli"
    while module not in LINE:
        module = module.rpartition(".")[0]
    return module


def arrows_up(found: Graph) -> list[tuple[str, str]]:
    """(module, what it imports) wherever that lies in a room that is not above in `ORDER`."""
    return sorted(
        (module, other)
        for module, others in found.items()
        for other in others
        if other in found
        and room_of(other) != room_of(module)
        and LINE[room_of(other)] >= LINE[room_of(module)]
    )


def circle(found: Graph) -> list[str]:
    """Modules of which each imports the next and the last the first; [] where there are none."""
    finished: set[str] = set()

    def follow(module: str, way: list[str]) -> list[str]:
        if module in way:
            return way[way.index(module) :]
        if module in finished:
            return []
        for other in sorted(found[module] & found.keys()):
            if around := follow(other, [*way, module]):
                return around
        finished.add(module)
        return []

    return next((around for module in sorted(found) if (around := follow(module, []))), [])


def render(found: Graph) -> str:
    """A line for each room, in order: how many modules it has, and which rooms it imports."""
    lines = []
    for room in LINE:
        own = [module for module in found if room_of(module) == room and module != room]
        others = {
            room_of(other)
            for module in own
            for other in found[module]
            if other in found and room_of(other) != room
        }
        names = ", ".join(sorted(others, key=lambda name: LINE[name])) or "nothing"
        lines.append(f"{room:20} {len(own):3}  <- {names}")
    ups = arrows_up(found)
    lines += [f"UP: {module} imports {other}" for module, other in ups]
    lines.append(f"{len(found)} modules, {len(LINE)} rooms, {len(ups)} arrows up.")
    return "\n".join(lines)


if __name__ == "__main__":
    found = graph()
    print(render(found))
    sys.exit(bool(arrows_up(found)))
