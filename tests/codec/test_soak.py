"""tools/soak.py: what is compared is what other processes made; a symbol that differs is found, counted and kept."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.codec.small_models import kinds_of, save_small_model
from vidlbc.codec.coding.moving import FrameKind
from vidlbc.errors import InputError, VidlbcError
from vidlbc.qa.soak import Conditions, SoakSettings, all_conditions, run, run_soak
from vidlbc.qa.soak.worker import SoakRequest

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("soak") / "model")


@pytest.fixture
def settings(model: Path, make_clip: Callable[..., Path], tmp_path: Path) -> SoakSettings:
    make_clip(tmp_path / "data" / "a.mp4", frames=7, size=(40, 56))
    encoding, decoding = all_conditions(["cpu"], ["fp32", "bf16"], [1, 2], [1, 2])
    return SoakSettings(
        tmp_path / "data", tmp_path / "out", str(model), ("lstm",), 1, encoding, decoding, frames=7, length=3
    )


@pytest.mark.slow
def test_the_tool_counts_every_symbol_once(run_tool: Tool, settings: SoakSettings, model: Path) -> None:
    one_clip = 3 * (1 * 10 * 14 + 3 * 5 * 7 + 4 * 3 * 4 + 5 * 2 * 2)
    done = run_tool(
        "soak",
        f"data={settings.data}",
        "out=soak",
        f"model={model}",
        "temporal=[lstm,none]",
        "devices=[cpu]",
        "frames=7",
        "length=3",
        f"symbols={2 * one_clip + 1}",
    )
    assert done.returncode == 0, done.stderr
    assert f"{4 * one_clip:,} symbols of lstm, none under " in done.stdout and ": 0 mismatches" in done.stdout


@pytest.mark.slow
def test_kinds_that_have_vectors(settings: SoakSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds of this seed have far vectors; their decoders take the clips one by one and as a batch."""
    honest, kinds = run._in_process, set()

    def note(request: SoakRequest, conditions: Conditions) -> list[tuple[str, int]]:
        entries = honest(request, conditions)
        if request.video:
            assert request.far
            for path in Path(request.folder).glob("*.vlbc"):
                kinds.update(kinds_of(path.read_bytes()))
        return entries

    monkeypatch.setattr(run, "_in_process", note)
    moved = save_small_model(tmp_path / "moved", moved=True)
    one_round = 2 * 3 * (1 * 10 * 14 + 3 * 5 * 7 + 4 * 3 * 4 + 5 * 2 * 2)
    both = replace(settings, model=str(moved), kinds=("lstm", "transformer"), symbols=2 * one_round, seed=20)
    tallies = run_soak(both)
    assert sum(tally.symbols for tally in tallies.values()) == 2 * one_round
    assert not sum(tally.mismatches for tally in tallies.values())
    assert kinds == {FrameKind.KEY, FrameKind.MOVED} and {("batch" in name) for name in tallies} == {False, True}


@pytest.mark.slow
def test_a_symbol_that_differs_is_counted_and_its_bitstream_kept(
    settings: SoakSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that gets one of the two clips wrong."""
    honest = run._in_process

    def decode_wrongly(request: SoakRequest, conditions: object) -> list[tuple[str, int]]:
        entries = honest(request, conditions)  # type: ignore[arg-type]
        return entries if request.video else [*entries[:1], ("another digest", entries[1][1])]

    monkeypatch.setattr(run, "_in_process", decode_wrongly)
    (tally,) = run_soak(settings).values()
    assert (tally.clips, tally.mismatches) == (2, tally.symbols // 2) and tally.symbols > 0
    (told,) = json.loads((settings.out / "soak.json").read_text()).values()
    assert told["mismatches"] == tally.mismatches and told["kinds"] == ["lstm"]
    (kept,) = (settings.out / "mismatches").iterdir()
    assert kept.name.startswith("a-lstm-qp") and kept.read_bytes()[:4] == b"VLBC"


@pytest.mark.slow
def test_a_process_that_fails_is_one_line(settings: SoakSettings) -> None:
    (settings.data / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(VidlbcError, match=r"encoding .*a.mp4 \(lstm; cpu, .*\) failed: .*unreadable"):
        run_soak(settings)


def test_bad_values_are_one_line(settings: SoakSettings) -> None:
    with pytest.raises(InputError, match="symbols=0: expected at least 1"):
        replace(settings, symbols=0)
    with pytest.raises(InputError, match="nothing to do"):
        replace(settings, kinds=())
    with pytest.raises(InputError, match="has no temporal stage 'gru'"):
        run_soak(replace(settings, kinds=("gru",)))
