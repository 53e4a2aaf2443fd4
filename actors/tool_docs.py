"""What a docstring says of a tool and of its arguments, for schemas: in Google's, NumPy's or Sphinx's form."""

import inspect


def described(doc: str) -> str:
    """Return what a docstring says of the tool itself."""
    from docstring_parser import parse

    parsed = parse(inspect.cleandoc(doc))
    return "\n\n".join(part.strip() for part in (parsed.short_description, parsed.long_description) if part)


def said_of(doc: str) -> dict[str, str]:
    """Return what a docstring says of each argument, by its name."""
    from docstring_parser import parse

    found = parse(inspect.cleandoc(doc)).params
    return {each.arg_name: " ".join(each.description.split()) for each in found if each.description}
