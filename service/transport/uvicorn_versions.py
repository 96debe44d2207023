"""Which versions of uvicorn our protocol classes extend. Knows none of the classes.

They reach into classes that uvicorn may change at any time. With another version they are not
used: everything is served by ASGI then, which is slower and otherwise the same.
"""

from __future__ import annotations

import logging
import re

import uvicorn

log = logging.getLogger(__name__)

FIRST, END = (0, 54), (0, 55)
"""The first version that the classes were made for and tested with, and the first after them."""

_NUMBERS = re.compile(r"(\d+)\.(\d+)(?:\.\d+)*\Z")


def is_extended(what: str, version: str = uvicorn.__version__) -> bool:
    """Tell whether our protocol classes fit uvicorn; if not, the log says what is slower for it.

    Args:
        what: What the class serves, in a word.
        version: The one that is installed.
    """
    numbers = _NUMBERS.match(version)
    # A version before its release is none that was tested.
    if numbers is not None and FIRST <= tuple(map(int, numbers.groups())) < END:
        return True
    log.warning(
        "%s: served by ASGI, which is slower: the faster way is made for uvicorn from %d.%d to"
        " below %d.%d, and this is %s",
        what, *FIRST, *END, version,
    )  # fmt: skip
    return False
