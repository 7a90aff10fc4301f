"""Developer commands; see `uv run check --help`."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
