"""The methods, by the names that command line, files and presets use. A new method is a file, and its name here."""

from __future__ import annotations

from collections.abc import Mapping

from . import abo, doco, few_shot, rece, uce
from .method import Method

METHODS: Mapping[str, Method] = {one.METHOD.name: one.METHOD for one in (rece, few_shot, doco, abo, uce)}
