"""What Python writes into SQL: names and text are quoted in one place, values are bound.

Every f-string with SQL in it is read as Python reads it, and each of its braces must hold SQL that is known to be safe. So a new
query that pastes a value into its text fails here, before a quotation mark in somebody's data finds it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPO

PACKAGE = REPO / "trendcast"
SQL = re.compile(
    r"\bselect\b.*\bfrom\b|^\s*\(?(select|from|with|case|describe|insert into|delete from|attach|copy"
    r"|create (or replace )?(temp )?(table|view|schema))\b|\b(try_)?cast\(\ufffd|\bwhere \ufffd|\b(count|sum|max|min|avg)\(\ufffd"
    r"|\bin \(\ufffd|\b(date|timestamp) '\ufffd",
    re.IGNORECASE | re.DOTALL,
)
# Functions that return SQL: those that quote, dbt's own rendering of a relation, and those whose own f-strings are read here.
SAFE_CALLS = {
    *("quote", "literal", "relation", "safe_cast", "text_order"),
    *("_period_start", "_periods_between", "days_between"),
    *(
        "_inside",
        "_at",
        "_mart",
        "_in_force",
        "_shown",
        "_scores",
        "_part",
        "_level_class",
        "entry",
        "_reader",
    ),
}
# Functions that put together what they are given, or turn whatever they get into a number.
JOINING = {"join", "map", "sorted", "list", "tuple", "enumerate", "zip"}
NUMBERS = {"int", "float", "len", "range"}

MARK = "\ufffd"  # stands for a brace in the text of an f-string
UNKNOWN = ast.Yield()
# What a function is handed to write into its SQL, or finds in the project. Each was followed to where it comes from: a
# relation that dbt or quote() rendered, a condition that is made of safe parts, an SQL expression of the user's own vars.
# A name here stands for SQL. Text and values do not belong here: they are bound, or pass through literal().
REVIEWED = {
    "audit.py": {
        *(
            "settings.order_date",
            "columns['quantity']",
            "quantity",
            "settings.max_quantity",
            "factor",
        ),  # vars
        *(
            "without",
            "condition",
            "sides[0]",
            "sides[1]",
        ),  # made by _late_series, _known and compare
    },
    "checks.py": {
        "expression",
        "date",
        "column",
        "', '.join(counts)",
        "typed[column]",
        *("attributes['product_id']", "', '.join(ours)", "', '.join(theirs)"),
        *(
            "lines",
            "products",
            "catalogue",
            "keys",
        ),  # made of these; a setting dbt checked
    },  # the mappings in the vars; names of ours
    "design.py": {
        "column",
        "j",
        "among",
        "listed",
        "rows_of",
    },  # _block: quoted by its callers; periods are numbers
    "doctor.py": {"relation", "text", "counts"},  # a source's relation, the mappings in the vars
    "features.py": {"condition"},  # made by portfolio.narrowed
    "models/ridge_rows.py": {
        *("', '.join(entries)", "_double('target.y')"),
        *("_double(f'history.{quote(LEVEL)}')", "_double(f'history.{quote(VARIANCE)}')"),
        *("rows_of('ftr_cutoff', sides.history, drawn.cutoffs, 'series_id', *scale)",),
        *("rows_of('ftr_history', [], targets, 'series_id', 'y', 'actual')",),
        *("rows_of('ftr_history', sides.season, seasons, 'series_id')",),
        *("rows_of('ftr_known', sides.by_series, targets, 'series_id')",),
        *("rows_of('ftr_calendar', sides.by_date, targets)",),
        *("expression", "_single(expression)", "listed", "sums"),
        *("_listed(periods)", "_listed(self.cutoffs)"),
    },  # columns are quoted by those that make these; periods are numbers
    "portfolio.py": {"present", "relation"},
    "scaffold.py": {
        *(
            "relation",
            "table.relation",
            "table.reads",
            "orders.relation",
            "found.orders.relation",
        ),  # made by read
        *(
            "product",
            "at",
            "price[0]",
            "columns['ordered_at']",
            "columns['product_id']",
        ),  # expressions of the guessed mapping, each with a quoted name
    },
    "session.py": {"mart", "' and '.join(conditions)", "order"},  # names of ACCURACY_BY
    "warehouse/duckdb.py": {"relation", "expression", "data_type"},
    "shards.py": {"condition", "listed"},  # made of numbers
    "warehouse/spark.py": {
        "relation",
        "expression",
        "data_type",
        "target",
        "aside",
        "cast",
        "types[n]",
        "sql",
        "counts",  # of the queries it is given
        "mine",  # a job's share of the hashes: numbers
    },
    "warehouse/postgres.py": {"relation", "', '.join([expression, *digits])", "data_type"},
}


class Module:
    """One module's f-strings, and where its names get their values."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = ast.parse(path.read_text())
        self.scope: dict[ast.AST, ast.AST] = {}
        for scope in ast.walk(self.tree):
            if isinstance(scope, ast.FunctionDef | ast.Module):
                # Inner functions come later and overwrite.
                self.scope.update({node: scope for node in ast.walk(scope) if node is not scope})

    def unsafe(self) -> Iterator[tuple[int, str]]:
        """Line and source of whatever is written into SQL and is not known to be safe."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.JoinedStr) and SQL.search(_text(node)):
                for value in node.values:
                    if isinstance(value, ast.FormattedValue) and not self.is_safe(value.value):
                        yield value.value.lineno, ast.unparse(value.value)

    def is_safe(self, node: ast.expr, seen: frozenset[str] = frozenset()) -> bool:
        """Whether an expression is SQL made of constants, numbers and what the safe functions return."""

        def safe(*nodes: ast.expr) -> bool:
            return all(self.is_safe(n, seen) for n in nodes)

        match node:
            case ast.Constant():
                return True
            case ast.JoinedStr(values=values):
                return safe(*(v.value for v in values if isinstance(v, ast.FormattedValue)))
            case ast.BinOp(left=left, right=right):
                return safe(left, right)
            case ast.IfExp(body=body, orelse=orelse):
                return safe(body, orelse)
            case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
                return safe(*parts)
            case ast.Starred(value=value) | ast.Subscript(value=value):
                return safe(value)
            case ast.Dict(values=values):
                return safe(*values)
            case ast.GeneratorExp(elt=made) | ast.ListComp(elt=made) | ast.DictComp(value=made):
                return safe(made)
            case ast.Attribute(attr=name):
                return name == "orders" or name.isupper()
            case ast.Call(func=function, args=arguments):
                called = ast.unparse(function)
                name = called.rsplit(".", 1)[-1]
                if name == "map":
                    return ast.unparse(arguments[0]) in {*SAFE_CALLS, *NUMBERS} or safe(
                        *arguments[1:]
                    )
                return (
                    name in SAFE_CALLS
                    or called in NUMBERS
                    or (name in JOINING and safe(*arguments))
                    or (name in ("items", "values") and safe(function.value))  # type: ignore[attr-defined]
                )
            case ast.Name(id=name):
                if name.isupper() or name in seen:
                    return True
                sources = list(self.sources(node))
                return bool(sources) and all(self.is_safe(s, seen | {name}) for s in sources)
        return False

    def sources(self, name: ast.Name) -> Iterator[ast.expr]:
        """What a name is given in its function, or in those around it: by `=`, `+=`, `.append` and `for`."""
        scope = self.scope.get(name, self.tree)
        while True:
            found = [source for node in ast.walk(scope) for source in _given_to(name.id, node)]
            if found or scope is self.tree:
                yield from found
                return
            scope = self.scope.get(scope, self.tree)


def _given_to(name: str, node: ast.AST) -> Iterator[ast.expr]:
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from _unpacked(name, target, value)
        case ast.AnnAssign(target=target, value=value) | ast.AugAssign(target=target, value=value):
            if value is not None:
                yield from _unpacked(name, target, value)
        case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
            yield from _unpacked(name, target, value, elements=True)
        case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr="append"), args=[value]):
            if owner == name:
                yield value
        case ast.arg(arg=arg, annotation=annotation):
            # A number cannot break out of anything; of text that is handed in, nothing is known.
            if arg == name:
                is_number = annotation is not None and ast.unparse(annotation) in NUMBERS
                yield ast.Constant(0) if is_number else UNKNOWN


def _unpacked(
    name: str, target: ast.expr, value: ast.expr, *, elements: bool = False
) -> Iterator[ast.expr]:
    if isinstance(target, ast.Name) and target.id == name:
        yield value
    elif isinstance(target, ast.Tuple):
        for k, part in enumerate(target.elts):
            same = (
                isinstance(value, ast.Tuple)
                and not elements
                and len(value.elts) == len(target.elts)
            )
            yield from _unpacked(name, part, value.elts[k] if same else value)  # type: ignore[attr-defined]


def _text(node: ast.JoinedStr) -> str:
    """Text of an f-string, with a mark for each of its braces."""
    return "".join(str(v.value) if isinstance(v, ast.Constant) else MARK for v in node.values)


MODULES = {str(path.relative_to(PACKAGE)): Module(path) for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("name", MODULES)
def test_sql_holds_nothing_that_is_not_quoted(name: str) -> None:
    found = [(n, text) for n, text in MODULES[name].unsafe() if text not in REVIEWED.get(name, ())]
    assert not found, f"bind these values, or write them through quote() or literal(): {found}"


def test_nothing_is_reviewed_that_is_gone() -> None:
    for name, reviewed in REVIEWED.items():
        assert reviewed <= {text for _, text in MODULES[name].unsafe()}, name


@pytest.mark.parametrize(
    ("line", "is_safe"),
    [
        ("query(f'select a from {quote(name)} where b = {literal(text)}')", True),
        ("query(f'select a from {name}')", False),
        ("query(f\"select a from t where b = '{text}'\")", False),
        ("query(f'select a from t where b in ({\", \".join(map(literal, names))})')", True),
        ("query(f'select a from t where b in ({\", \".join(names)})')", False),
        ("query(f'select a from t limit {n}')", True),
        ("part = f'b = {text}'; query(f'select a from t where {part}')", False),
        ("part = 'b = ' + literal(text); query(f'select a from t where {part}')", True),
        (
            "parts = ['true']; parts.append(text); query(f'select a from t where {\" and \".join(parts)}')",
            False,
        ),
        ("query(f'attach {path} as shop')", False),
        ("say(f'{text} is no column')", True),
    ],
)
def test_what_is_not_quoted_is_found(tmp_path: Path, line: str, is_safe: bool) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        f"def ask(name: str, text: str, names: list[str], path: Path, n: int):\n    {line}\n"
    )
    assert (not list(Module(path).unsafe())) == is_safe
