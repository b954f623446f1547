"""The languages of tasks and actors, under Ray's name."""

from __future__ import annotations

import enum


class Language(enum.Enum):
    """klieg runs Python; Ray names others."""

    PYTHON = 0
