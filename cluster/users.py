"""Who does something: the name that is recorded with it."""

import getpass

from perdure.cluster.settings import Settings
from perdure.errors import EnvironmentProblem


def user_of(settings: Settings) -> str:
    """Return the name of who uses these settings. Raises EnvironmentProblem where there is none."""
    try:
        return settings.user or getpass.getuser()
    except (KeyError, OSError):
        raise EnvironmentProblem("this process's user has no name; say who you are with PERDURE_USER") from None
