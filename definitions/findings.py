"""What the checks find: a place within the definition, what is wrong there, and how grave it is."""

from dataclasses import dataclass

from perdure.definitions.yaml_source import Path


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding at the path of a value (`key`: at its key); a warning does not keep a definition from running.

    `lack`: something is not there, which may merely follow from another part that is malformed.
    """

    path: Path
    message: str
    warning: bool = False
    key: bool = False
    lack: bool = False
