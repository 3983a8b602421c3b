"""The reliability campaign: python -m tests.campaign hostile --count=1000 --seed=0."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from campaign.command import main  # noqa: E402

main()
