"""Whether processes end."""

import os
import select


def ends(pid: int, within_s: float = 30.0) -> bool:
    """Whether the process is gone, or goes, within the time."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)
