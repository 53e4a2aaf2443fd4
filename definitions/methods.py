"""The methods of the expression language: for each kind of data a fixed list, none of which changes anything."""

from collections.abc import Callable
from typing import Any

from perdure.definitions.evaluation import Run, describe
from perdure.definitions.signatures import Function, function_of
from perdure.errors import ExpressionError

METHODS: dict[str, dict[type, Function]] = {}
"""The methods by name, and for each name by the type that has it."""

CHANGING = frozenset({
    "append", "extend", "insert", "remove", "pop", "popitem", "clear", "sort", "reverse", "update", "setdefault", "add",
    "discard", "push", "set", "delete",
})  # fmt: skip
"""Names of methods that would change data."""


def _method(
    kind: type, form: str, what: str, example: str, result: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(call: Callable[..., Any]) -> Callable[..., Any]:
        function = function_of(form, what, example, result, call)
        METHODS.setdefault(function.name, {})[kind] = function
        return call

    return add


def _plain(form: str, what: str, example: str, result: Any, change: Callable[..., str]) -> None:
    """Add a method of strings that gives a text of about the same length."""

    def call(run: Run, text: str, *arguments: Any) -> str:
        run.make_text(len(text))
        for characters in filter(None, arguments):  # each one at the ends is looked for among all of these
            run.spend(len(text) * (10 + len(characters)) // 500)
        return change(text, *arguments)

    _method(str, form, what, example, result)(call)


_plain("upper()", "In capitals.", "'ab'.upper()", "AB", str.upper)
_plain("lower()", "In small letters.", "'AB'.lower()", "ab", str.lower)
_plain("title()", "Each word with a capital.", "'ann lee'.title()", "Ann Lee", str.title)
_plain("capitalize()", "The first letter as a capital.", "'ann lee'.capitalize()", "Ann lee", str.capitalize)
_plain("strip(characters: string = None)", "Without blanks (or these characters) at both ends.", "' a '.strip()", "a",
       str.strip)  # fmt: skip
_plain("lstrip(characters: string = None)", "The same at the start.", "'00120'.lstrip('0')", "120", str.lstrip)
_plain("rstrip(characters: string = None)", "The same at the end.", "'a/'.rstrip('/')", "a", str.rstrip)
_plain("removeprefix(prefix: string)", "Without this start.", "'ORD-7'.removeprefix('ORD-')", "7", str.removeprefix)
_plain("removesuffix(suffix: string)", "Without this end.", "'a.txt'.removesuffix('.txt')", "a", str.removesuffix)


@_method(str, "split(separator: string = None, limit: integer = -1)", "The pieces between separators, or between "
         "blanks; at most `limit` cuts.", "'a,b'.split(',')", ["a", "b"])  # fmt: skip
def _split(run: Run, text: str, separator: str | None, limit: int) -> list[str]:
    run.make_text(len(text))
    if separator is not None:
        run.search(text, separator)
    if separator == "":
        raise ExpressionError("split needs a separator that is not empty")
    pieces = text.split(separator, limit)
    run.spend(len(pieces))
    return pieces


@_method(str, "splitlines()", "The lines.", r"'a\nb'.splitlines()", ["a", "b"])
def _splitlines(run: Run, text: str) -> list[str]:
    run.make_text(len(text))
    lines = text.splitlines()
    run.spend(len(lines))
    return lines


@_method(str, "join(parts: list)", "The strings of a list with this text between them.", "', '.join(['a', 'b'])",
         "a, b")  # fmt: skip
def _join(run: Run, separator: str, parts: list[Any]) -> str:
    run.spend(len(parts))
    for part in parts:
        if type(part) is not str:
            raise ExpressionError(f"join takes strings, not {describe(part)}; write str(...) around each")
    run.make_text(sum(map(len, parts)) + len(separator) * len(parts))
    return separator.join(parts)


@_method(str, "replace(old: string, new: string)", "With one text in place of another, everywhere.",
         "'a-b'.replace('-', '_')", "a_b")  # fmt: skip
def _replace(run: Run, text: str, old: str, new: str) -> str:
    run.search(text, old)
    run.make_text(len(text) + text.count(old) * len(new))
    return text.replace(old, new)


@_method(str, "startswith(prefix: string)", "Whether it begins so.", "'ORD-7'.startswith('ORD-')", True)
def _startswith(run: Run, text: str, prefix: str) -> bool:
    run.make_text(len(prefix))
    return text.startswith(prefix)


@_method(str, "endswith(suffix: string)", "Whether it ends so.", "'a.txt'.endswith('.txt')", True)
def _endswith(run: Run, text: str, suffix: str) -> bool:
    run.make_text(len(suffix))
    return text.endswith(suffix)


@_method(str, "find(part: string)", "Where a text begins in this one, or -1.", "'abc'.find('c')", 2)
def _find(run: Run, text: str, part: str) -> int:
    run.search(text, part)
    return text.find(part)


@_method(str, "count(part: string)", "How often a text is in this one.", "'banana'.count('an')", 2)
def _count_text(run: Run, text: str, part: str) -> int:
    run.search(text, part)
    return text.count(part)


@_method(list, "count(value: any)", "How many items equal a value.", "[1, 2, 1].count(1)", 2)
def _count(run: Run, values: list[Any], value: Any) -> int:
    look_through(run, values, value)
    return values.count(value)


@_method(list, "index(value: any)", "Where the first item stands that equals a value.", "['a', 'b'].index('b')", 1)
def _index(run: Run, values: list[Any], value: Any) -> int:
    look_through(run, values, value)
    try:
        return values.index(value)
    except ValueError:
        raise ExpressionError("index: the list does not have this value") from None


@_method(dict, "get(key: string, default: any = None)", "The value of a key, or the default where there is none.",
         "{'a': 1}.get('b', 0)", 0)  # fmt: skip
def _get(run: Run, data: dict[str, Any], key: str, default: Any) -> Any:
    return data.get(key, default)


@_method(dict, "keys()", "The keys.", "{'a': 1}.keys()", ["a"])
def _keys(run: Run, data: dict[str, Any]) -> list[str]:
    run.spend(len(data))
    return list(data)


@_method(dict, "values()", "The values.", "{'a': 1}.values()", [1])
def _values(run: Run, data: dict[str, Any]) -> list[Any]:
    run.spend(len(data))
    return list(data.values())


@_method(dict, "items()", "Lists of a key and its value.", "[k + '=' + str(v) for k, v in {'a': 1}.items()]", ["a=1"])
def _items(run: Run, data: dict[str, Any]) -> list[list[Any]]:
    run.spend(3 * len(data))
    return [[key, value] for key, value in data.items()]


def look_through(run: Run, values: list[Any], value: Any) -> None:
    """Take what it costs at worst to compare each item of a list with a value."""
    if type(value) is str:
        run.spend(len(values) * (1 + len(value) // 50))
    elif type(value) in (list, dict):
        run.weigh(values)
    else:
        run.spend(len(values))
