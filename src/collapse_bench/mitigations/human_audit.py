"""Human audit: a person accepts and rejects candidates."""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import torch
from jaxtyping import Int64
from PIL import Image, ImageDraw
from torch import Tensor

from collapse_bench.distributed import from_main
from collapse_bench.errors import ConfigError, RunDirError, SelectionError
from collapse_bench.fingerprint import fingerprint
from collapse_bench.mitigations.selection import Selection
from collapse_bench.now import Now, Setting
from collapse_bench.pool import UNLABELLED, Pool
from collapse_bench.rundir import RunDir, read_json, write_text
from collapse_bench.samplers.base import Draw, Sampler
from collapse_bench.types import ImageSpec

_COLUMNS = ("number", "pixel_hash", "class", "decision")
_DECISIONS = {"accept": True, "reject": False, "": None}


@final
@dataclass(frozen=True, kw_only=True)
class HumanAudit(Selection):
    """Keeps the first candidates that a person accepts; the run stops at every generation and waits for her.

    The candidates are shown on a contact sheet, ``audit/gen_003.png`` in the run folder, and listed by the hash of
    their pixels in ``audit/gen_003.csv``, whose column ``decision`` is to be filled in with accept or reject. The
    same command then goes on, with the candidates that she has seen: their pixels are staged in
    ``audit/gen_003.safetensors``, because another machine or number of threads would draw them a grey level apart.
    The decisions are looked up by the hashes of these pixels. The fitted model comes from the cache of fits; without
    the cache it is fitted again, and only on the same machine and threads is it the one that made these candidates.
    It looks at no real image (the person may). Where all is accepted and ``candidates_per_kept=1`` it equals the
    control bit for bit.

    Args:
        candidates_per_kept: see ``Selection``; what is above 1 is how much may be rejected.
    """

    reason: ClassVar[str] = "accepted by a person"

    def check(self, setting: Setting) -> None:
        """Raises ConfigError as ``Selection`` does, or if the images cannot be looked at."""
        super().check(setting)
        assert isinstance(setting.sampler, Sampler)
        if setting.spec.dtype != "uint8" or not setting.sampler.quantize:
            raise ConfigError("mitigation=human_audit shows pictures; choose a data set of them and quantize=true")

    def candidates(self, draw: Draw, num_needed: int, now: Now) -> Pool:
        """Those that were exported, pixel for pixel; at the first time the next images of the sampler are.

        Raises:
            SelectionError: if what was exported is not there, damaged, or of another run.
        """
        drawn = super().candidates(draw, num_needed, now)  # counted, and listed in the ledger, in any case
        return from_main(lambda: self._exported(drawn, now))

    def select(self, candidates: Pool, num_needed: int, draw: Draw, now: Now) -> Int64[Tensor, " num_needed"]:
        """The first accepted ones.

        Raises:
            SelectionError: while decisions are missing, naming the file and the command that goes on; or if fewer
                are accepted than are needed.
        """
        return from_main(lambda: self._accepted(candidates, num_needed, now))

    def _exported(self, drawn: Pool, now: Now) -> Pool:
        sheet = sheet_of(now)
        stage = sheet.with_suffix(".safetensors")
        if not sheet.exists():
            sheet.parent.mkdir(exist_ok=True)
            write_contact_sheet(drawn, sheet.with_suffix(".png"))
            drawn.save(stage)
            write_text(sheet, listing(drawn, now.setting.spec))  # last: it says that all is there
        remedy = f"put back the file that was exported, or delete {sheet} and its decisions to export candidates anew"
        try:
            staged = Pool.load(stage)
        except RunDirError as error:
            raise SelectionError(
                f"generation {now.generation}: the candidates that {sheet} decides on are missing or damaged "
                f"({error.__cause__}): {stage}; {remedy}"
            ) from error
        if not (torch.equal(staged.image_id, drawn.image_id) and torch.equal(staged.seed, drawn.seed)):
            raise SelectionError(
                f"generation {now.generation}: {stage} holds candidates of another run or generation; {remedy}"
            )
        if not set(pixel_hashes(staged)) <= set(read_decisions(sheet)):
            raise SelectionError(f"generation {now.generation}: {sheet} does not list the images of {stage}; {remedy}")
        return staged

    def _accepted(self, candidates: Pool, num_needed: int, now: Now) -> Int64[Tensor, " num_needed"]:
        sheet = sheet_of(now)
        decisions, hashes = read_decisions(sheet), pixel_hashes(candidates)
        if num_open := sum(decisions[pixel_hash] is None for pixel_hash in hashes):
            raise SelectionError(
                f"generation {now.generation}: {num_open} of {len(hashes)} candidates wait for a person. Look at "
                f"{sheet.with_suffix('.png')}, write accept or reject into the column 'decision' of {sheet}, then "
                f"continue with: {command(now.chain.run_dir)}"
            )
        accepted = torch.tensor([decisions[pixel_hash] for pixel_hash in hashes]).nonzero().flatten()
        if len(accepted) < num_needed:
            raise SelectionError(
                f"generation {now.generation}: {len(accepted)} of {len(hashes)} candidates are accepted and "
                f"{num_needed} are needed; accept more in {sheet}, or start a run with a larger "
                "mitigation.curator.candidates_per_kept"
            )
        return accepted[:num_needed]


def sheet_of(now: Now) -> Path:
    """The file of the decisions of a generation; the contact sheet and the staged candidates have its name."""
    return now.chain.run_dir.path / "audit" / f"gen_{now.generation:03d}.csv"


def pixel_hashes(candidates: Pool) -> list[str]:
    """What decisions know images by."""
    return [fingerprint(image) for image in candidates.images]


def listing(candidates: Pool, spec: ImageSpec) -> str:
    """The candidates as CSV, one line each, without decisions."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for number, (pixel_hash, label) in enumerate(
        zip(pixel_hashes(candidates), candidates.labels.tolist(), strict=True)
    ):
        writer.writerow([number, pixel_hash, "" if label == UNLABELLED else spec.class_names[label], ""])
    return text.getvalue()


def read_decisions(path: Path) -> Mapping[str, bool | None]:
    """Whether each image is accepted, by the hash of its pixels; ``None`` where that is not decided.

    Raises:
        SelectionError: if the file does not have its columns, a decision is neither accept nor reject, or equal
            images have different ones.
    """
    decisions: dict[str, bool | None] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a mark in front
        reader = csv.DictReader(file)
        if not {"pixel_hash", "decision"} <= set(reader.fieldnames or ()):
            raise SelectionError(f"{path} needs the columns {', '.join(_COLUMNS)}; delete it to export it anew")
        for row in reader:
            pixel_hash, decision = row["pixel_hash"], (row["decision"] or "").strip().lower()
            if decision not in _DECISIONS:
                raise SelectionError(f"{path}: a decision is accept or reject, got {decision!r} for {pixel_hash}")
            if decisions.setdefault(pixel_hash, _DECISIONS[decision]) != _DECISIONS[decision]:
                raise SelectionError(f"{path}: equal images {pixel_hash} have different decisions; make them equal")
    return decisions


def command(run_dir: RunDir) -> str:
    """The command that goes on with a run."""
    return read_json(run_dir.path / "run.json").get("command", "the command that started the run")


def write_contact_sheet(candidates: Pool, path: Path) -> None:
    """Writes all candidates as one PNG, each with its number above it."""
    size, caption = 64, 12
    num_columns = math.ceil(math.sqrt(len(candidates)))
    num_rows = math.ceil(len(candidates) / num_columns)
    sheet = Image.new("RGB", (num_columns * (size + 4), num_rows * (size + caption + 4)), "white")
    write = ImageDraw.Draw(sheet)
    for number, image in enumerate(candidates.images):
        x, y = number % num_columns * (size + 4), number // num_columns * (size + caption + 4)
        write.text((x + 2, y), str(number), fill="black")
        pixels = image.permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy()
        sheet.paste(Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST), (x + 2, y + caption))
    sheet.save(path)
