"""What went wrong in somebody's environment, said in one line."""

from __future__ import annotations

import traceback
from pathlib import Path

OURS = str(Path(__file__).parent)
LIBRARIES = ("site-packages", "dist-packages")


class EnvError(RuntimeError):
    """An environment failed, broke the rules of the PettingZoo API, or its worker died."""


def explain(error: BaseException, what: str) -> EnvError:
    """The error of an environment as one line: its type and message, and the line of the user's code it came from.

    Args:
        error: What the environment raised.
        what: What was being done, such as ``copy 3, step 7``.
    """
    if isinstance(error, EnvError):
        return EnvError(f"{what}: {error}")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((OURS, "<"))]
    own = [f for f in frames if not any(part in f.filename for part in LIBRARIES)]
    at = (own or frames)[-1:]
    place = f" ({at[0].filename}:{at[0].lineno})" if at else ""
    text = ": ".join(filter(None, [what, type(error).__name__, " ".join(str(error).split())]))
    return EnvError(f"{text}{place}")
