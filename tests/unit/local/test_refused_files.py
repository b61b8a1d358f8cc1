from __future__ import annotations

import json

from pixloom.local.up import _refused_files


def test_files_that_are_refused_and_not_loaded_since_are_shown_once(tmp_path):
    log = tmp_path / "scheduler.log"
    refused = {"event": "workflow_file_refused", "pointer": "/nodes/0/op", "problem": "there is no op `x`"}
    entries = [
        {**refused, "file": "old.json"},
        {"event": "scheduler_stopped"},
        {**refused, "file": "bad.json"},
        {**refused, "file": "own.json"},
        {**refused, "file": "bad.json"},
        {"event": "workflow_loaded", "file": "own.json"},
        {"event": "workflow_file_unreadable", "file": "secret.json", "problem": "Permission denied"},
    ]
    log.write_text("not json\n" + "\n".join(json.dumps(entry) for entry in entries))
    assert _refused_files(log) == [
        "bad.json is not loaded: /nodes/0/op: there is no op `x`",
        "secret.json cannot be read: Permission denied",
    ]
