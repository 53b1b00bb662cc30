"""Progress of parts as that of the whole."""

from __future__ import annotations

from erasure_core.progress import part_of


def test_parts_are_reported_as_one_work() -> None:
    reports: list[tuple[int, int, str]] = []
    for index in range(2):
        part_of(lambda *report: reports.append(report), index, 2)(1, 4, "sampling")
    assert reports == [(1, 8, "sampling"), (5, 8, "sampling")]


def test_parts_of_different_steps_have_one_length() -> None:
    reports: list[tuple[int, int]] = []
    for index, total in enumerate((3, 7)):
        part_of(lambda done, total, what: reports.append((done, total)), index, 2, steps=1000)(2, total, "searching")
    assert reports == [(666, 2000), (1285, 2000)]


def test_without_a_callback_nothing_is_reported() -> None:
    assert part_of(None, 0, 2) is None
