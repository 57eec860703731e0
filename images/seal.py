"""Makes a tree read-only and writes down what it holds: `python3 seal.py /opt/scoring-runtime`.

The list lies in the tree as `MANIFEST.sha256`; `scoring-runtime image check` compares.
"""

import hashlib
import sys
from pathlib import Path

NAME = "MANIFEST.sha256"


def main(root: Path) -> None:
    """Seal the tree below `root`."""
    lines = []
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            lines.append(f"{hashlib.sha256(str(path.readlink()).encode()).hexdigest()}  {path.relative_to(root)}")
        elif path.is_file():
            lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root)}")
            path.chmod(path.stat().st_mode & 0o555 | 0o444)
    (root / NAME).write_text("\n".join(lines) + "\n")
    (root / NAME).chmod(0o444)
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())):
        folder.chmod(0o555)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
