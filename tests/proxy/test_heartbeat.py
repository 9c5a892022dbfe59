import json
from datetime import UTC, datetime
from pathlib import Path

from proxy.heartbeat import FILE_NAME, State, publish


def test_the_state_is_one_json_object(tmp_path: Path) -> None:
    """Whoever reads it needs nothing of ours."""
    state = State(time=datetime(2026, 11, 22, tzinfo=UTC), rows=3, lag_seconds=0.5)
    publish(state, tmp_path)
    found = json.loads((tmp_path / FILE_NAME).read_text())
    assert found["time"] == "2026-11-22T00:00:00Z"
    assert (found["rows"], found["lag_seconds"]) == (3, 0.5)
    assert found["database_reachable"] is None


def test_it_is_replaced_whole(tmp_path: Path) -> None:
    """A reader never sees half of it, and nothing else is left in the directory."""
    for rows in range(3):
        publish(State(time=datetime(2026, 11, 22, tzinfo=UTC), rows=rows), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert json.loads((tmp_path / FILE_NAME).read_text())["rows"] == 2
