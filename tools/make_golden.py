#!/usr/bin/env python3
"""Makes the golden repository of the present format version: tests/data/golden-v<version>/.

    python tools/make_golden.py           refuses where there is one already
    python tools/make_golden.py --again   replaces it

Once a version has been released its golden data MUST NOT be made again: it stands for what lies on
users' disks, and must stay readable for ever. `--again` is for the time before. A new format
version gets a new folder beside the old ones.

Decides what the golden repository holds; what must be true of it is in tests/repo/test_golden.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.boot_trace import TracedRange
from backpoint_repo.chunking import ChunkParameters
from backpoint_repo.credential import AgentCredential, write_credential
from backpoint_repo.exclusions import mark_damaged
from backpoint_repo.format import FORMAT_VERSION, Kind
from backpoint_repo.index import pack_sizes
from backpoint_repo.key_slots import ScryptCost, add_slot
from backpoint_repo.lease import BACKUP, MOUNT, Lease, LeaseTerms
from backpoint_repo.parity.upkeep import Upkeep
from backpoint_repo.pin import pin_of
from backpoint_repo.point import Point
from backpoint_repo.point_hold import Hold, put_hold
from backpoint_repo.point_note import AFTERMATH, PointNote, put_note
from backpoint_repo.point_proof import put_proof
from backpoint_repo.policy import Policy, put_policy
from backpoint_repo.proof import Level, Proof, Step
from backpoint_repo.record import encode_record
from backpoint_repo.recovery_key import format_recovery_key
from backpoint_repo.repository import Passphrase, Repository, create_repository, open_repository
from backpoint_repo.scrubbing.reading_book import ReadingBook
from backpoint_repo.scrubbing.readings import COMPARED, OPENED, row_of, rows_of
from backpoint_repo.source.raw_image import RawImage
from backpoint_repo.store.local import LocalStore
from backpoint_repo.trash import put_trash

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
PASSPHRASE = "golden Paßwort"
CHEAP = ScryptCost(n=2, p=1)
CHUNKS = ChunkParameters(avg_blocks=4, min_blocks=1, max_blocks=16, hole_blocks=4)
EPOCH = 1_760_000_000.0
PARITY = (4, 2)
VOID_POINTS = 66
"""Voids enough that listing the repository writes a catalogue object (catalog.COMPACT_AFTER)."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the golden repository.")
    parser.add_argument("--again", action="store_true", help="replace the one that is there")
    home = DATA / f"golden-v{FORMAT_VERSION}"
    if home.exists():
        if not parser.parse_args().again:
            parser.error(f"{home} exists; golden data of a released version is never made again")
        shutil.rmtree(home)
    else:
        parser.parse_args()
    home.mkdir(parents=True)
    Maker(home).run()


class Maker:
    """One golden repository and what is expected of it."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._root = home / "repository"
        self._now = EPOCH
        self._rng = random.Random(1)
        self._repository = create_repository(
            LocalStore(self._root), Passphrase(PASSPHRASE), CHUNKS, cost=CHEAP, clock=self._clock
        )
        self._points: list[dict[str, Any]] = []

    def run(self) -> None:
        """Everything, in the order that leaves nothing to chance but random names and keys."""
        recovery = format_recovery_key(self._rng.randbytes(32))
        add_slot(self._repository.sealed, recovery, "in the safe: Größe", CHEAP, self._now)
        keyring = self._repository.sealed.keyring
        credential = AgentCredential.of(self._repository.config, keyring.secret)
        write_credential(credential, self._home / "agent.json")
        self._web_server()
        self._files_only()
        voids = [self._revoked_session() for _ in range(VOID_POINTS)]
        self._database()
        self._damage_and_trash()
        self._notes()
        self._policies()
        self._readings()
        self._parity()
        self._lease()
        shutil.rmtree(self._root / "tmp")
        expected = {
            "passphrase": PASSPHRASE,
            "recovery_key": recovery,
            "voids": sorted(voids),
            "points": self._points,
        }
        text = json.dumps(expected, indent=1, ensure_ascii=False)
        (self._home / "expected.json").write_text(text + "\n", encoding="utf-8")

    def _web_server(self) -> None:
        """Two disks: sparse with an odd size and two leaves; one of text. Then an incremental."""
        disk = bytearray((36 << 20) + 777)
        disk[40960:61440] = self._rng.randbytes(20480)
        disk[(33 << 20) + 5 : (33 << 20) + 9000] = self._rng.randbytes(8995)
        disk[-3000:] = b"the end of an odd disk " * 130 + b"." * 10
        text = b"".join(b"line %d of a log\n" % number for number in range(4000))
        files = {"web01.vmx": b'displayName = "web01"\n', "web01.nvram": bytes(100), "empty": b""}
        disks = {"scsi0:0": bytes(disk), "scsi0:1": text}
        self._back_up("web01", disks, {}, files, "")
        disk[45056:53248] = self._rng.randbytes(8192)
        disk[33 << 20 : (33 << 20) + 16384] = bytes(16384)
        disks["scsi0:0"] = bytes(disk)
        changed = {"scsi0:0": [(45056, 8192), (33 << 20, 16384)], "scsi0:1": []}
        self._back_up("web01", disks, changed, files, "vor dem Umbau ✓")

    def _files_only(self) -> None:
        """An empty disk, one of zeros, and a file of more than one chunk."""
        big = b"".join(b"%06d" % number for number in range(20_000))
        disks = {"ide0:0": b"", "ide0:1": bytes(5 << 20)}
        self._back_up("データ / база", disks, {}, {"große Datei.txt": big}, "")

    def _database(self) -> None:
        """More than 8 GiB, so two levels of inner nodes; data at both ends."""
        size = (8 << 30) + (40 << 20)
        start, end = self._rng.randbytes(4096), b"end" * 1365 + b"."
        path = self._home / "disk.tmp"
        with path.open("wb") as file:
            file.write(start)
            file.truncate(size)
            file.seek(size - len(end))
            file.write(end)
        digest = hashlib.sha256(start + end).hexdigest()
        places = [[0, len(start)], [size - len(end), len(end)]]
        point = self._publish("db", {"nvme0:0": path}, {}, {}, "")
        path.unlink()
        row = {"key": "nvme0:0", "size": size, "sha256": digest, "places": places}
        self._expect(point, [row], {})

    def _back_up(
        self,
        vm: str,
        disks: dict[str, bytes],
        changed: Mapping[str, Sequence[tuple[int, int]]],
        files: dict[str, bytes],
        label: str,
    ) -> None:
        paths = {}
        for number, (key, content) in enumerate(disks.items()):
            paths[key] = self._home / f"disk{number}.tmp"
            paths[key].write_bytes(content)
        point = self._publish(vm, paths, changed, files, label)
        for path in paths.values():
            path.unlink()
        rows = [
            {"key": key, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for key, data in disks.items()
        ]
        self._expect(point, rows, files)

    def _publish(
        self,
        vm: str,
        disks: dict[str, Path],
        changed: Mapping[str, Sequence[tuple[int, int]]],
        files: dict[str, bytes],
        label: str,
    ) -> Point:
        self._now += 3600
        with self._open().begin_backup(vm) as session:
            for key, path in disks.items():
                source = RawImage(path)
                session.store_disk(DiskJob(key, source, changed.get(key)), lambda _: None)
                source.close()
            for name, data in files.items():
                session.store_file(name, data)
            return session.publish(time=self._now - 1800.5, label=label)

    def _expect(self, point: Point, disks: list[dict[str, Any]], files: dict[str, bytes]) -> None:
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        self._points.append(
            {
                "id": point.point_id.hex(),
                "vm": point.vm,
                "time": point.time,
                "created": point.created,
                "label": point.label,
                "generation": point.generation,
                "parent": point.parent.hex() if point.parent else None,
                "disks": disks,
                "files": digests,
            }
        )

    def _revoked_session(self) -> str:
        session = self._rng.randbytes(16)
        payload = encode_record({"revoked": self._now, "by": bytes(16)})
        self._repository.sealed.put(Kind.VOID, session.hex(), payload)
        return session.hex()

    def _notes(self) -> None:
        """What removing a snapshot came to, a hold, and a proof with all that belongs to it."""
        repository = self._open()
        sealed, point_id = repository.sealed, repository.catalog.refresh()[0].point_id
        facts = {"snapshot_remove_s": 1.5, "alarms": []}
        put_note(sealed, PointNote(point_id, AFTERMATH, self._now, facts))
        put_hold(sealed, Hold(point_id, "0123456789abcdef", "für den Prüfer", self._now, None))
        steps = tuple(Step(level, True, 1.5, "wie es soll", ("TCG",)) for level in Level)
        proof = Proof(point_id, self._now, steps, "backpoint 1", "host", 6.0, "login:", 4.5)
        png = b"\x89PNG\r\n\x1a\n" + bytes(256)
        put_proof(sealed, proof, png, [TracedRange(0, 40960, 8192), TracedRange(1, 0, 512)])

    def _damage_and_trash(self) -> None:
        """Of packs and copies that are gone already, so that the repository itself is whole."""
        repository = self._open()
        repository.index.refresh()
        pack = next(iter(sorted(repository.index.packs())))._replace(name=bytes(16))
        sealed = repository.sealed
        mark_damaged(sealed, [(self._rng.randbytes(32), pack)], self._now)
        for epoch, packs in ((1, [pack]), (2, [])):
            assert put_trash(sealed, epoch, packs, epoch - 1, self._rng.randbytes(16), self._now)

    def _policies(self) -> None:
        """The longer minimum age counts, and the parity set last."""
        sealed = self._repository.sealed
        put_policy(sealed, Policy(14 * 86400.0, None), self._clock)
        put_policy(sealed, Policy(7 * 86400.0, PARITY), self._clock)

    def _readings(self) -> None:
        """Every pack was opened, one compared later, one is not there any more."""
        sealed = self._repository.sealed
        packs = [pack for pack, _ in pack_sizes(sealed)]
        gone = packs[0]._replace(name=bytes(16))
        rows = [row_of(pack, self._now, OPENED) for pack in (*packs, gone)]
        rows.append(row_of(packs[0], self._now + 60, COMPARED))
        ReadingBook(sealed, packs, self._now).add(rows_of(rows), self._now)

    def _parity(self) -> None:
        report = Upkeep(self._open(), PARITY, column=4096).run(lambda _: None)
        assert report.in_order(PARITY), report

    def _lease(self) -> None:
        """A session that died, refreshed once; and a mount with a pin."""
        sealed = self._repository.sealed
        Lease(sealed, self._rng.randbytes(16), LeaseTerms(BACKUP, 0), self._clock).refresh()
        pin = pin_of(self._open().point(bytes.fromhex(self._points[0]["id"])))
        Lease(sealed, self._rng.randbytes(16), LeaseTerms(MOUNT, 2, (pin,)), self._clock)

    def _open(self) -> Repository:
        return open_repository(LocalStore(self._root), Passphrase(PASSPHRASE), self._clock)

    def _clock(self) -> float:
        return self._now


if __name__ == "__main__":
    main()
