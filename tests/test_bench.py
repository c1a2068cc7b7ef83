"""The benchmark's own arithmetic, and where it writes."""

from pathlib import Path

import pytest

from bench.draft import stage_seconds
from bench.report import BEGIN, END, Row, machine, markdown, percentile, write_into
from tests.jobs.traces import DRAFT


def test_a_percentile_is_a_value_that_was_measured():
    assert [percentile([3, 1, 2, 4], share) for share in (0.25, 0.5, 0.99, 1.0)] == [1, 2, 4, 4]


def test_the_stages_of_a_job_add_up_to_all_but_its_start():
    for trace in DRAFT["one kind"]:
        told = [
            [at, event.stage, event.done, event.total] for at, event in trace.events if event.type == "stage_progress"
        ]
        seconds = stage_seconds([*told, [trace.total_s, "done"]])
        assert sum(seconds.values()) == pytest.approx(trace.total_s - told[0][0])
        assert min(seconds.values()) >= 0


def test_the_table_replaces_the_one_before_and_nothing_else(tmp_path: Path):
    document = tmp_path / "benchmarks.md"
    document.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    rows = [Row("calls", r"p99 \1 ms", "<= 2 ms", ok=False), Row("bytes", "3", "", None)]
    for _ in range(2):
        write_into(document, markdown(rows, machine()))
    text = document.read_text()
    assert text.count("| calls | p99 \\1 ms | <= 2 ms | NO |") == 1
    assert text.startswith("before\n")
    assert text.endswith(f"{END}\nafter\n")
    assert all(f"- {fact}: " in text for fact in ("processor", "memory", "system", "python", "versions"))
    document.write_text("no marks")
    with pytest.raises(ValueError, match="has no lines"):
        write_into(document, "table")


def test_the_shipped_document_takes_a_table():
    text = (Path(__file__).parents[1] / "docs" / "benchmarks.md").read_text("utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
