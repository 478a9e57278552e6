"""webdataset, pyarrow and Hugging Face datasets open the shards, in a process where vidlbc cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vidlbc.shards import LatentShards

_BLOCK = """
import sys, json, glob
sys.modules['vidlbc'] = None  # importing it fails from here on
folder = sys.argv[1]
tars = sorted(glob.glob(folder + '/*.tar'))
"""

_WEBDATASET = """
import webdataset
read = webdataset.WebDataset(tars, shardshuffle=False).decode()
out = [[s['__key__'], len(s['vlbc']), s['cls'], s['json']['source']] for s in read]
"""

_PYARROW = """
import pyarrow.dataset
rows = pyarrow.dataset.dataset(sorted(glob.glob(folder + '/*.parquet'))).to_table().to_pylist()
out = []
for row in rows:
    with open(f"{folder}/{row['tar']}", "rb") as tar:
        tar.seek(row["offset"])
        out.append([row["key"], len(tar.read(row["bytes"])), row["label"], row["source"]])
"""

_HF_TARS = """
import datasets
datasets.disable_progress_bars()
read = datasets.load_dataset("webdataset", data_files=tars, split="train", cache_dir=sys.argv[2])
out = [[s['__key__'], len(s['vlbc']), s['cls'], s['json']['source']] for s in read]
"""

_HF_PARQUET = """
import datasets
datasets.disable_progress_bars()
read = datasets.load_dataset("parquet", data_files=folder + "/*.parquet", split="train", cache_dir=sys.argv[2])
out = [[s['key'], s['bytes'], s['label'], s['source']] for s in read]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "code", [_WEBDATASET, _PYARROW, _HF_TARS, _HF_PARQUET], ids=["webdataset", "pyarrow", "hf", "hf_parquet"]
)
def test_opens_without_vidlbc(fake_shards: Callable[..., LatentShards], tmp_path: Path, code: str) -> None:
    shards = fake_shards(shuffle=False)
    script = _BLOCK + code + "\nprint('RESULT' + json.dumps(out))"
    command = [sys.executable, "-W", "ignore", "-c", script, str(shards.folder), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.partition("RESULT")[2])
    expected = [[s["key"], len(s["bitstream"]), s["label"], s["meta"]["source"]] for s in shards]
    assert sorted(found) == sorted(expected)
