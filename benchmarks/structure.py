"""Measures of the source tree: rooms, floors, arrows, circles, lengths, and what is documented.

    python -m benchmarks structure [--root DIR]

Read from syntax trees alone; nothing is imported or run. Imports inside functions count, those
under `if TYPE_CHECKING:` do not. The code measured may be that of another commit.

room      a module or folder directly under a package; a folder counts with all that is in it
arrow     a pair of rooms, the first of which imports the second at least once
floor     rank of a room: the longest chain of arrows below it, rooms of one circle taken as one
upward    an arrow from a smaller rank to a larger one, by the table RANKS of tests/test_layers.py
circle    a strongly connected component with more than one member
public    defined without a leading underscore in a module without one in its path
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGES = ("hpo", "surrogates", "benchmarks")
RANK_TABLE = Path("tests") / "test_layers.py"

Graph = dict[str, set[str]]
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

_SILENT = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


@dataclass(frozen=True)
class Module:
    """One file.

    Attributes:
        name: dotted; that of the package for its `__init__`.
        folder: dotted name of the package that holds it, itself for an `__init__`.
        is_init: whether it is an `__init__`.
        text: source.
    """

    name: str
    folder: str
    is_init: bool
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Syntax tree."""
        return ast.parse(self.text)

    @cached_property
    def code_lines(self) -> frozenset[int]:
        """Numbers of lines that hold more than comments, docstrings and white space."""
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in _SILENT:
                lines.update(range(token.start[0], token.end[0] + 1))
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Module | Definition) and ast.get_docstring(node, clean=False):
                docstring = node.body[0]
                lines.difference_update(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
        return frozenset(lines)

    @property
    def is_public(self) -> bool:
        """Whether no part of the path has a leading underscore, `__init__` and `__main__` aside."""
        return not any(
            part.startswith("_") and not part.startswith("__") for part in self.name.split(".")
        )

    def functions(self) -> Iterator[tuple[str, int]]:
        """Name and number of code lines of every function, nested ones and methods included."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                span = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                yield f"{self.name}.{node.name}", sum(line in self.code_lines for line in span)


@dataclass(frozen=True)
class Documented:
    """How many names there are, and how many of them have a docstring and a `>>>` example."""

    names: int
    docstrings: int
    examples: int

    @classmethod
    def of(cls, docstrings: Sequence[str | None]) -> Documented:
        """Counts of `docstrings`, None where a name has none."""
        written = [text for text in docstrings if text]
        return cls(len(docstrings), len(written), sum(">>>" in text for text in written))

    def __str__(self) -> str:
        return f"{self.docstrings} / {self.examples} of {self.names}"


@dataclass(frozen=True)
class Structure:
    """Measures of one package; see the module for the words."""

    modules: tuple[Module, ...]
    rooms: Graph
    typed_rooms: Graph
    imports: Graph
    ranks: Mapping[str, float]
    exported: Documented
    methods: Documented
    public: Documented

    @property
    def arrows(self) -> list[tuple[str, str]]:
        """Pairs of rooms with at least one import."""
        return arrows(self.rooms)

    @property
    def floors(self) -> list[list[str]]:
        """Rooms by rank, lowest first."""
        return floors(self.rooms)

    @property
    def upward(self) -> list[tuple[str, str]]:
        """Arrows that point to a larger rank; none where there is no rank table."""
        return upward(self.rooms, self.ranks)

    @property
    def folders(self) -> Counter[str]:
        """Number of modules in each folder, `__init__` not counted."""
        return Counter(module.folder for module in self.modules if not module.is_init)

    @property
    def function_lengths(self) -> dict[str, int]:
        """Code lines of each function; the longest where several share a name."""
        lengths: dict[str, int] = {}
        for name, length in (found for module in self.modules for found in module.functions()):
            lengths[f"{name}:{len(lengths)}"] = length
        return lengths

    @property
    def file_lengths(self) -> dict[str, int]:
        """Lines of each file, everything counted."""
        return {
            module.name + ".__init__" * module.is_init: len(module.text.splitlines())
            for module in self.modules
        }


def measure(root: Path, package: str) -> Structure:
    """Measure the package of that name under `root`."""
    modules = tuple(_modules(root, package))
    known = {module.name for module in modules}
    imports = {module.name: _imports(module, known) for module in modules}
    typed = {module.name: _imports(module, known, types=True) for module in modules}
    exported = _exported(modules, package)
    return Structure(
        modules=modules,
        rooms=_between_rooms(imports),
        typed_rooms=_between_rooms(typed),
        imports=imports,
        ranks=_ranks(root),
        exported=Documented.of([ast.get_docstring(node) for node in exported]),
        methods=Documented.of(
            [ast.get_docstring(m) for node in exported for m in _public(node.body)]
            if exported
            else []
        ),
        public=Documented.of(
            [
                ast.get_docstring(node)
                for module in modules
                if module.is_public
                for node in _public(module.tree.body)
            ]
        ),
    )


def arrows(graph: Graph) -> list[tuple[str, str]]:
    """Pairs of nodes, the first of which points to the second."""
    return sorted((a, b) for a, others in graph.items() for b in others)


def upward(graph: Graph, ranks: Mapping[str, float]) -> list[tuple[str, str]]:
    """Arrows from a smaller to a larger rank."""
    return [(a, b) for a, b in arrows(graph) if _rank(a, ranks) < _rank(b, ranks)]


def circles(graph: Graph) -> list[list[str]]:
    """Strongly connected components with more than one member (Tarjan 1972), largest first."""
    return sorted((sorted(c) for c in _components(graph) if len(c) > 1), key=lambda c: (-len(c), c))


def floors(graph: Graph) -> list[list[str]]:
    """Nodes by the longest chain below them, each component taken as one node."""
    rank: dict[str, int] = {}
    for component in _components(graph):  # what a component imports comes before it
        below = {other for node in component for other in graph[node]} - component
        floor = 1 + max((rank[other] for other in below), default=-1)
        rank.update(dict.fromkeys(component, floor))
    levels: list[list[str]] = [[] for _ in range(1 + max(rank.values(), default=-1))]
    for node, floor in sorted(rank.items()):
        levels[floor].append(node)
    return levels


def table(structures: Mapping[str, Structure]) -> str:
    """One Markdown table: a row for each measure, a column for each package."""
    rows: dict[str, list[str]] = {}

    def add(measure: str, value: object) -> None:
        rows.setdefault(measure, []).append(str(value))

    for structure in structures.values():
        in_rooms, in_modules = circles(structure.rooms), circles(structure.imports)
        add("modules, `__init__` not counted", sum(structure.folders.values()))
        add("rooms", len(structure.rooms))
        add("floors", len(structure.floors))
        add("arrows", len(structure.arrows))
        add("upward arrows", _listed([f"{a} -> {b}" for a, b in structure.upward]))
        add("circles of rooms", _listed([", ".join(circle) for circle in in_rooms]))
        add("circles of modules", _listed([", ".join(circle) for circle in in_modules]))
        typed = structure.typed_rooms
        add("arrows, imports for types included", len(arrows(typed)))
        found = [f"{a} -> {b}" for a, b in upward(typed, structure.ranks)]
        add("upward arrows, imports for types included", _listed(found))
        cycles = [", ".join(circle) for circle in circles(typed)]
        add("circles of rooms, imports for types included", _listed(cycles))
        folder, size = structure.folders.most_common(1)[0] if structure.folders else ("", 0)
        add("largest folder, modules", f"{size} ({folder})")
        for name, lengths in (
            ("function length", structure.function_lengths),
            ("file length", structure.file_lengths),
        ):
            add(f"{name}, median / p90 / max", _quantiles(lengths))
        add("names in `__all__`: docstring / example", structure.exported)
        add("their public methods: docstring / example", structure.methods)
        add("public classes and functions: docstring / example", structure.public)
    lines = [["", *structures], ["---"] * (1 + len(structures))]
    lines += [[measure, *values] for measure, values in rows.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --- reading -------------------------------------------------------------------------------------


def _modules(root: Path, package: str) -> Iterator[Module]:
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if any(part.startswith(".") for part in parts):  # environments of peers
            continue
        is_init = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_init else parts)
        yield Module(name, ".".join(parts[:-1]), is_init, path.read_text())


def _imports(module: Module, known: set[str], *, types: bool = False) -> set[str]:
    """Modules among `known` that `module` imports anywhere in its text, itself excluded.

    `types`: whether imports under `if TYPE_CHECKING:` count.
    """
    found: set[str] = set()
    for node in ast.walk(module.tree) if types else _statements(module.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                base = module.folder.split(".")[: len(module.folder.split(".")) - node.level + 1]
                source = ".".join([*base, *([node.module] if node.module else [])])
            # `from hpo.training import context` names a module, `from hpo import Float` does not.
            found |= {
                name if (name := f"{source}.{alias.name}") in known else source
                for alias in node.names
            }
    return (found & known) - {module.name}


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from _statements(other)
            continue
        yield child
        yield from _statements(child)


def _between_rooms(imports: Graph) -> Graph:
    """Imports between modules as arrows between rooms."""
    rooms: Graph = {room: set() for name in imports if (room := _room(name)) is not None}
    for name, found in imports.items():
        room = _room(name)
        if room is not None:
            others = {_room(other) for other in found}
            rooms[room] |= {other for other in others if other is not None and other != room}
    return rooms


def _room(module: str) -> str | None:
    """The room of a module, `package.name`; None for the package itself."""
    parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 else None


def _components(graph: Graph) -> list[set[str]]:
    """Strongly connected components; each comes after those that it points to."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            cut = stack.index(node)
            found.append(set(stack[cut:]))
            del stack[cut:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def _ranks(root: Path) -> dict[str, float]:
    """The table RANKS of the layer test, read and not run; empty where there is none."""
    path = root / RANK_TABLE
    if not path.exists():
        return {}
    for node in ast.parse(path.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        if any(isinstance(t, ast.Name) and t.id == "RANKS" for t in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            ranks: dict[str, float] = ast.literal_eval(node.value)
            return ranks
    return {}


def _rank(room: str, ranks: Mapping[str, float]) -> float:
    """Of a room, or of all that is in it where only that is named: the largest."""
    if room in ranks:
        return ranks[room]
    inside = [rank for name, rank in ranks.items() if name.startswith(f"{room}.")]
    return max(inside, default=ranks.get(room.split(".")[0], 0.0))


def _public(body: Sequence[ast.stmt]) -> list[Definition]:
    """Classes and functions among `body` whose name has no leading underscore."""
    return [node for node in body if isinstance(node, Definition) and not node.name.startswith("_")]


def _exported(modules: Sequence[Module], package: str) -> list[Definition]:
    """Where the classes and functions of the package's `__all__` are defined."""
    by_name = {module.name: module for module in modules}
    top = by_name.get(package)
    if top is None:
        return []
    found: list[Definition] = []
    sources = _sources(top)
    for name in _names_in_all(top):
        definition = _definition(by_name, sources.get(name, package), name)
        if definition is not None:
            found.append(definition)
    return found


def _names_in_all(module: Module) -> list[str]:
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
        ):
            names: list[str] = ast.literal_eval(node.value)
            return names
    return []


def _sources(module: Module) -> dict[str, str]:
    """Name -> module that it is imported from, lazily by a dict of strings or at once."""
    sources: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            sources |= {alias.asname or alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                pair = (key, value)
                if all(isinstance(c, ast.Constant) and isinstance(c.value, str) for c in pair):
                    sources[ast.literal_eval(key)] = ast.literal_eval(value)  # type: ignore[arg-type]
    return sources


def _definition(by_name: Mapping[str, Module], source: str, name: str) -> Definition | None:
    """Follow re-exports from module `source` to the class or function called `name`."""
    for _ in range(len(by_name)):
        module = by_name.get(source)
        if module is None:
            return None
        for node in module.tree.body:
            if isinstance(node, Definition) and node.name == name:
                return node
        source = _sources(module).get(name, "")
    return None


# --- writing -------------------------------------------------------------------------------------


def _listed(items: Sequence[str]) -> str:
    return str(len(items)) + (f": {'; '.join(items)}" if items else "")


def _quantiles(lengths: Mapping[str, int]) -> str:
    """Median, 90th percentile and largest of `lengths`, and whose that is."""
    if not lengths:
        return "0 / 0 / 0"
    values = sorted(lengths.values())
    p90 = values[-(-9 * len(values) // 10) - 1]
    longest = max(lengths, key=lambda name: lengths[name])
    return f"{statistics.median(values):g} / {p90} / {values[-1]} ({longest.split(':')[0]})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `python -m benchmarks structure`."""
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--root", type=Path, default=root, help="the tree to measure")
    parser.set_defaults(action=_run)


def _run(given: argparse.Namespace) -> int:
    root: Path = given.root
    print(table({name: measure(root, name) for name in PACKAGES if (root / name).is_dir()}))
    return 0
