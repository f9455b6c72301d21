"""Rewrites the golden verdicts; refuses where verdicts changed and the version of their verifier did not."""

import sys

from tests.golden_verdicts import FOLDER, VERIFIERS, Golden, current, moved, read, refusal, write


def main() -> int:
    """Write each file that may be written. Returns 1 where one may not, else 0."""
    code = 0
    for name in VERIFIERS:
        new = current(name)
        old = read(name) if (FOLDER / f"{name}.jsonl").exists() else Golden(new.version, {})
        if why := refusal(name, old, new):
            print(why, file=sys.stderr)
            code = 1
        else:
            write(name, new)
            print(
                f"{name}: version {old.version} -> {new.version}, {len(new.verdicts)} solutions, "
                f"{len(moved(old, new))} changed"
            )
    return code


if __name__ == "__main__":
    sys.exit(main())
