"""Write ``schemas/published/openapi.json``, or check that it is up to date.

python -m api.export            writes it
python -m api.export --check    exits 1 when it differs from the code
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from api.app import describe

__all__ = ["FILE", "main", "render"]

FILE = Path(__file__).parents[1] / "schemas" / "published" / "openapi.json"


def render() -> str:
    """Return the document as it is published."""
    return json.dumps(describe(), sort_keys=True, ensure_ascii=False, indent=2) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or with ``--check`` compare it. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m api.export", description="Write the published OpenAPI document.")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when the file differs")
    options = parser.parse_args(arguments)
    text = render().encode()
    if options.check:
        if FILE.is_file() and FILE.read_bytes() == text:
            return 0
        sys.stderr.write(f"{FILE} is not what the code says: run `python -m api.export` and commit the result\n")
        return 1
    FILE.write_bytes(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
