from __future__ import annotations

from tests.faults.page import BEGIN, END, merged

RESULT = {"case": "commit-cut", "accepted": 3, "lost": 0, "recovery_p99_s": 0.5, "cuts": "1 before", "passed": True}


def test_a_run_replaces_the_rows_of_its_cases_and_keeps_the_others() -> None:
    page = merged(f"before\n{BEGIN}\n{END}\nafter\n", [RESULT], run="0.1, 5, 2")
    page = merged(page, [{"case": "executor-kill", "accepted": 7, "passed": False}], run="1, 60, 2")
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    rows = [line for line in page.splitlines() if "(`" in line]
    assert ["executor-kill" in rows[0], "commit-cut" in rows[1]] == [True, True]
    assert rows[0].endswith("| 1, 60, 2 | **no** |")
    assert "| 3 |  | 0 |" in rows[1]
    assert "| 0.5 s |" in rows[1]
    assert "cuts 1 before | 0.1, 5, 2 | yes |" in rows[1]
    again = merged(page, [{**RESULT, "accepted": 4}], run="0.1, 5, 2")
    assert next(line for line in again.splitlines() if "(`" in line) == rows[0]
    assert "| 4 |  | 0 |" in again
    assert "| 3 |  | 0 |" not in again
