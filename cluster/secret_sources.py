"""Where secrets come from: the environment of the process that runs an execution, or a folder with a file for each."""

import os
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path

from perdure.actors.secret_values import Secrets
from perdure.errors import SecretMissing


@cache
def secrets_in(folder: Path | None) -> Secrets:
    """Return the secrets of this process, the same for all who ask, so that all redact what any of them has seen."""
    return Secrets(partial(value_of, folder), (secrets_in, (folder,)))


def value_of(folder: Path | None, name: str) -> str:
    """Return a secret: its variable, else its file without the line break at the end. Raises SecretMissing."""
    variable = f"PERDURE_SECRET_{name.upper()}"
    value = os.environ.get(variable) or (_in_file(folder / name, name) if folder is not None else None)
    if value:
        return value
    there = (
        f"the file {folder / name}"
        if folder is not None
        else f"a file {name} in a folder that PERDURE_SECRETS_DIR names"
    )
    raise SecretMissing(
        f"there is no secret {name!r}, or it is empty: set {variable} in the environment that the workflow runs in, "
        f"or put it into {there}"
    )


def check_secrets(names: Iterable[str], folder: Path | None) -> None:
    """Raise SecretMissing naming every one of the secrets that is not here."""
    problems = []
    for name in sorted(names):
        try:
            value_of(folder, name)
        except SecretMissing as error:
            problems.append(str(error))
    if problems:
        raise SecretMissing("; ".join(problems))


def _in_file(file: Path, name: str) -> str | None:
    try:
        return file.read_bytes().decode().removesuffix("\n").removesuffix("\r")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SecretMissing(f"the secret {name!r} cannot be read from {file}: {error}") from None
