"""Where things lie."""

from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
FIXTURES = Path(__file__).parent / "fixtures"
#: Real lists lie beside the repo where somebody has them; they are not ours to ship.
REAL_LISTS = REPO.parent / "shared" / "data"
