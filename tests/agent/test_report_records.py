"""Records of runs: each is a file, whole or not there, and only ours are ever deleted."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_agent.report.record_form import decode_run
from backpoint_agent.report.records import read_records, save_record
from backpoint_agent.report.restores import restore_rate, save_restore
from backpoint_agent.settings.model import Settings
from backpoint_agent.state_folder import make_state_folder
from backpoint_repo.errors import UsageError
from run_records import (
    DAY,
    GIB,
    NIGHT,
    failed_outcome,
    full_outcome,
    settings_in,
    some_outcome,
    some_run,
    state_of,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A configuration of one job, `nightly`."""
    return settings_in(tmp_path)


def read(settings: Settings, job: str = "nightly") -> tuple[list[Any], list[str]]:
    """The records that can be read, and what is told of the others."""
    told: list[str] = []
    return list(read_records(state_of(settings).runs, job, told.append)), told


def test_a_record_comes_back_as_it_was(settings: Settings) -> None:
    """Every field survives the file, and nobody else may read it."""
    outcomes = (
        full_outcome("wéb\x1b\ud800", warnings=("a", "b"), alarms=("c",)),
        failed_outcome("db01", temporary=True, tries=3),
    )
    run = some_run(*outcomes, skipped=(("x", "excluded"),), warnings=("w",), trouble="t")
    path = save_record(settings, state_of(settings), run)
    assert read(settings) == ([run], [])
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_bytes())["good"] is False


def test_the_last_saved_comes_first_whatever_clocks_say(settings: Settings) -> None:
    """The order is that of saving, not of the times in the records."""
    runs = [some_run(at=NIGHT + days * DAY) for days in (0, 900, 1, -3000, 2)]
    for run in runs:
        save_record(settings, state_of(settings), run)
    assert read(settings)[0] == runs[::-1]


def test_the_oldest_are_deleted_of_each_job_by_itself(settings: Settings) -> None:
    """A job that runs often pushes out its own records only."""
    weekly = some_run(job="weekly")
    save_record(settings, state_of(settings), weekly, kept=3)
    runs = [some_run(some_outcome(at=NIGHT + hours)) for hours in range(7)]
    for run in runs:
        save_record(settings, state_of(settings), run, kept=3)
    assert read(settings)[0] == runs[:3:-1]
    assert read(settings, "weekly")[0] == [weekly]


def test_what_is_not_ours_is_neither_read_nor_deleted(settings: Settings) -> None:
    """Files of other names, and files of our names with something else in them, stay."""
    folder = save_record(settings, state_of(settings), some_run(), kept=1).parent
    strange = {
        "notes.txt": "mine",
        "00000000-mine.json": '{"type": "shopping"}',
        "00000001": "x",
        ".hidden.unfinish": "y",
    }
    for name, text in strange.items():
        (folder / name).write_text(text)
    (folder / "00000000-folder.json").mkdir()
    target = folder / "target"
    target.write_text('{"type": "run", "x": 1}')
    (folder / "00000000-link.json").symlink_to(target)
    last = some_run()
    save_record(settings, state_of(settings), some_run(), kept=1)
    save_record(settings, state_of(settings), last, kept=1)
    assert {name: (folder / name).read_text() for name in strange} == strange
    assert target.exists()
    assert (folder / "00000000-link.json").is_symlink()
    records, told = read(settings)
    assert records == [last]
    assert len(told) == 3
    assert all(str(folder) in text for text in told)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"type": "run", "num',
        b"[]",
        b"[" * 100_000,
        b'{"type": "run"}',
        b"\xff\xfe",
        b'{"type": "run", "number": 1' + b"0" * 5000 + b"}",
    ],
)
def test_a_damaged_record_is_told_and_passed_over(settings: Settings, content: bytes) -> None:
    """The others are read all the same."""
    first, last = some_run(at=NIGHT), some_run(at=NIGHT + DAY)
    save_record(settings, state_of(settings), first)
    save_record(settings, state_of(settings), some_run()).write_bytes(content)
    save_record(settings, state_of(settings), last)
    records, told = read(settings)
    assert records == [last, first]
    assert len(told) == 1
    assert "passed over" in told[0]


@given(st.data())
def test_no_content_makes_more_than_a_damaged_record(data: st.DataObject) -> None:
    """Whatever stands in place of one field, the record is refused or is as it must be."""
    outcome = full_outcome(alarms=("a",))
    record = json.loads(json.dumps(some_run(outcome, skipped=(("a", "b"),)).record()))
    place = data.draw(
        st.sampled_from([record, record["outcomes"][0], record["outcomes"][0]["disks"][0]])
    )
    key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(JSON)
    try:
        run = decode_run(record)
    except ValueError:
        return
    assert decode_run(json.loads(json.dumps(run.record(), allow_nan=False))) == run


def test_fields_of_a_later_version_are_passed_over_and_new_ones_have_defaults() -> None:
    """Records are read by older and newer agents."""
    run = some_run(some_outcome())
    record = json.loads(json.dumps(run.record()))
    record["later"] = record["outcomes"][0]["later"] = {"x": 1}
    assert decode_run(record) == run
    del record["trouble"], record["outcomes"][0]["tries"]
    assert decode_run(record) == run


def test_records_are_saved_by_many_at_once(settings: Settings) -> None:
    """None is lost, and no two have one number."""
    runs = [some_run(at=NIGHT + number) for number in range(16)]
    state = state_of(settings)
    threads = [threading.Thread(target=save_record, args=(settings, state, run)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records, told = read(settings)
    assert sorted(record.number for record in records) == sorted(run.number for run in runs)
    assert told == []
    names = [path.name for path in (state.runs / "nightly").glob("*.json")]
    assert sorted(int(name.partition("-")[0]) for name in names) == list(range(1, 17))


def test_what_a_crash_left_is_removed_by_the_next(settings: Settings) -> None:
    """An unfinished file of a writer that is gone."""
    folder = save_record(settings, state_of(settings), some_run()).parent
    left = folder / ".4711-aa.unfinished"
    left.write_bytes(b'{"type": "ru')
    save_record(settings, state_of(settings), some_run())
    assert not left.exists()
    assert not list(folder.glob(".*.unfinished"))


@pytest.mark.parametrize("job", ["/etc/x", "..", "", "ж" * 120, "a\nb", "\ud800"])
def test_no_name_of_a_job_leads_out_of_the_folder(tmp_path: Path, job: str) -> None:
    """Names that no file can have get another one, and are found again."""
    settings = settings_in(tmp_path)
    run = some_run(job=job, number="../../x")
    path = save_record(settings, state_of(settings), run)
    assert path.parent.parent == state_of(settings).runs
    assert read(settings, job)[0] == [run]


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    """Somebody could choose what `status` believes."""
    folder = tmp_path / "records"
    folder.mkdir()
    folder.chmod(0o777)
    settings = settings_in(tmp_path, '[report]\nrecords = "records"\n')
    with pytest.raises(UsageError, match="can be written by others"):
        save_record(settings, state_of(settings), some_run())


def test_records_that_cannot_be_listed_are_told(settings: Settings) -> None:
    """A file in place of the job's folder."""
    (state_of(settings).runs / "nightly").write_text("x")
    records, told = read(settings)
    assert records == []
    assert "cannot be read" in told[0]


def test_a_thousand_records_are_not_read_for_one(settings: Settings) -> None:
    """Reading stops where nobody asks for more: an older damaged file is not even noticed."""
    save_record(settings, state_of(settings), some_run()).write_bytes(b"x")
    last = some_run()
    save_record(settings, state_of(settings), last)
    told: list[str] = []
    assert next(read_records(state_of(settings).runs, "nightly", told.append)) == last
    assert told == []


def test_restores_give_the_rate_of_the_last_ten(tmp_path: Path) -> None:
    """Plans and damaged ones count for nothing."""
    state = make_state_folder(tmp_path / "state")
    told: list[str] = []
    assert restore_rate(state, told.append) is None

    def restored(size: int, seconds: object, **more: Any) -> dict[str, Any]:
        return {"type": "restored-machine", "disks": [{"size": size}], "duration_s": seconds} | more

    save_restore(state, restored(GIB, 1e-3), NIGHT)
    for _ in range(8):
        save_restore(state, restored(GIB, 10.0), NIGHT)
    save_restore(state, restored(GIB, 1e-3, type="restored-over", dry_run=True), NIGHT)
    save_restore(state, restored(GIB, "soon"), NIGHT)
    assert restore_rate(state, told.append) == pytest.approx(GIB / 10)
    assert told == []
    assert len(os.listdir(state.path / "restores")) == 12


def test_replacing_a_field_is_no_accident(settings: Settings) -> None:
    """A record that lies in another job's folder is not that job's."""
    path = save_record(settings, state_of(settings), some_run())
    other = replace(some_run(), job="other")
    path.write_text(json.dumps(other.record()))
    records, told = read(settings)
    assert records == []
    assert "of the job other" in told[0]
