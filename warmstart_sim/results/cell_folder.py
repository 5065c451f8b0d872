"""The folder of one cell: checkpoint, weights, result, and why it failed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmstart_sim.results.columns import Row
from warmstart_sim.results.files import write_bytes, write_text

TEMPORARY = ("checkpoint.pt", "rows.json", "error.json")  # removed when the cell is complete


@dataclass(frozen=True)
class CellFolder:
    """The folder of one cell, or of one shared first phase.

    Attributes:
        path: The folder.
        kept_epochs: The epochs of a first phase after which its weights are kept.
    """

    path: Path
    kept_epochs: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the cell is done, its result can be read, and its weights are not cut off."""
        result = self.result()
        if result is None or _cut_off(self.path / "weights.pt"):
            return False
        reached = [epochs for epochs in self.kept_epochs if epochs <= result["rounds"][-1]["epochs"]]
        return all(zipfile.is_zipfile(self._weights_file(epochs)) for epochs in reached)

    def damage(self) -> str | None:
        """The damaged file of an incomplete cell, or None. A killed run damages no file; a disk may."""
        for name, damaged in (
            ("result.json", (self.path / "result.json").exists() and self.result() is None),
            *((path.name, _cut_off(path)) for path in sorted(self.path.glob("weights*.pt"))),
            ("checkpoint.pt", _corrupt(self.path / "checkpoint.pt")),
        ):
            if damaged:
                return f"{self.path / name} is damaged"
        return None

    def result(self) -> dict[str, Any] | None:
        """A complete cell's {"rounds": [...], "epochs": [...]}, and "columns" of probes if any; None otherwise.

        An unreadable result counts as missing, and the cell runs again.
        """
        return self._read_json("result.json")

    def finished_rounds(self) -> dict[str, Any] | None:
        """The rows of an incomplete cell up to its last finished round, as in `result`; None if there are none."""
        return self._read_json("rows.json")

    def checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint on the CPU, or None; an unreadable one counts as missing."""
        return self._load("checkpoint.pt")

    def weights(self, after_epochs: int | None = None) -> dict[str, Any] | None:
        """The state dict with which the cell ended, or that was kept after so many epochs, on the CPU; or None."""
        return self._load(self._weights_file(after_epochs).name)

    def keep_weights(self, weights: Mapping[str, Any], after_epochs: int) -> None:
        """Stores the weights after so many epochs, beside those at the end."""
        self._save(self._weights_file(after_epochs).name, weights)

    def save_arrival(self, chunks: Sequence[Sequence[int]]) -> None:
        """Writes arrival.csv: the samples that a model has chosen, as (round, index in the training set)."""
        lines = [f"{index},{sample}" for index, chunk in enumerate(chunks) for sample in chunk]
        write_text(self.path / "arrival.csv", "\n".join(["round,index", *lines, ""]))

    def arrival(self) -> list[list[int]] | None:
        """The samples that arrived with each round, from arrival.csv; None if it cannot be read."""
        try:
            rows = (self.path / "arrival.csv").read_text(encoding="utf-8").split()[1:]
            chunks: dict[int, list[int]] = {}
            for index, sample in (map(int, row.split(",")) for row in rows):
                chunks.setdefault(index, []).append(sample)
        except (OSError, ValueError):
            return None
        return list(chunks.values()) or None

    def _weights_file(self, after_epochs: int | None) -> Path:
        return self.path / ("weights.pt" if after_epochs is None else f"weights_epoch{after_epochs}.pt")

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return (self.path / "checkpoint.pt").exists()

    def describe(self, settings: Mapping[str, Any]) -> None:
        """Writes settings.json, which describes the cell to a human reader."""
        write_text(self.path / "settings.json", json.dumps(settings, indent=1))

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replaces the checkpoint, and the copy of its rows that can be read without torch."""
        self._save("checkpoint.pt", state)
        rows = {key: state[key] for key in ("rounds", "epochs", "columns")}
        write_text(self.path / "rows.json", json.dumps(rows))

    def finish(
        self,
        weights: Mapping[str, Any],
        rounds: Sequence[Row],
        epochs: Sequence[Row],
        columns: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Stores weights and rows, the result last, and removes the checkpoint.

        Args:
            weights: The state dict with which the cell ended.
            rounds: Its rows of rounds.csv, without the columns that identify the cell.
            epochs: Its rows of epochs.csv.
            columns: The probe and the unit of each column that a probe added.
        """
        self._save("weights.pt", weights)
        self._write_result(rounds, epochs, columns)

    def copy_result(
        self,
        other: CellFolder,
        rounds: Sequence[Row],
        epochs: Sequence[Row],
        columns: Mapping[str, Mapping[str, str]] | None,
    ) -> None:
        """`finish` with the weights of another cell."""
        write_bytes(self.path / "weights.pt", (other.path / "weights.pt").read_bytes())
        self._write_result(rounds, epochs, columns)

    def _write_result(
        self, rounds: Sequence[Row], epochs: Sequence[Row], columns: Mapping[str, Mapping[str, str]] | None
    ) -> None:
        result = {"rounds": list(rounds), "epochs": list(epochs)} | ({"columns": dict(columns)} if columns else {})
        write_text(self.path / "result.json", json.dumps(result))
        for name in TEMPORARY:
            (self.path / name).unlink(missing_ok=True)

    def fail(self, reason: str, details: str = "") -> None:
        """Records why the cell failed; a later run of the same command tries it again."""
        write_text(self.path / "error.json", json.dumps({"reason": reason, "details": details}, indent=1))

    def lose(self, reason: str) -> None:
        """Adds to lost.json why the worker that trained the cell died."""
        write_text(self.path / "lost.json", json.dumps([*self.losses(), reason], indent=1))

    def losses(self) -> list[str]:
        """Why workers that trained the cell died, the first one first."""
        try:
            return [str(each) for each in json.loads((self.path / "lost.json").read_text(encoding="utf-8"))]
        except (FileNotFoundError, ValueError):
            return []

    def error(self) -> str | None:
        """Why the cell failed last time, or None."""
        try:
            return str(json.loads((self.path / "error.json").read_text(encoding="utf-8"))["reason"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def _read_json(self, name: str) -> dict[str, Any] | None:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def _save(self, name: str, state: Mapping[str, Any]) -> None:
        import torch

        content = io.BytesIO()  # torch.save itself hides a full disk behind a RuntimeError
        torch.save(dict(state), content)
        write_bytes(self.path / name, content.getbuffer())

    def _load(self, name: str) -> dict[str, Any] | None:
        import torch

        path = self.path / name
        if not path.exists() or _corrupt(path):  # torch.load compares no checksums
            return None
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception:  # torch.load raises whatever the unpickler or the zip reader met
            return None


def _cut_off(path: Path) -> bool:
    """Whether a file of tensors lacks its end, where a zip file keeps its list of contents; cheap."""
    return path.exists() and not zipfile.is_zipfile(path)


def _corrupt(path: Path) -> bool:
    """Whether a file of tensors is not what was written; reads all of it."""
    if not path.exists():
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is not None
    except (OSError, zipfile.BadZipFile):
        return True
