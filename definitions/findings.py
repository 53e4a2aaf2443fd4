"""What the checks find: a place within the definition, what is wrong there, and how grave it is."""

from dataclasses import dataclass

from perdure.definitions.yaml_source import Path


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding at the path of a value (`key`: at its key); a warning does not keep a definition from running."""

    path: Path
    message: str
    warning: bool = False
    key: bool = False
