"""The command line as a user meets it: overrides, help, and every failure one line with the right exit status.

A small tool with configs of its own stands in for the real ones; the last tests go over every config of the project.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidlbc import commands
from vidlbc.errors import InputError, VidlbcError
from vidlbc.run import compose
from vidlbc.run.cli import explain
from vidlbc.run.composed import options_of
from vidlbc.run.options import declared

REPO = Path(__file__).resolve().parents[2]

TOOL = '''"""Weigh some videos.

Second paragraph."""
import errno, json, sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from omegaconf import OmegaConf
from vidlbc.run.cli import run
from vidlbc.run.options import Many, option, required, section
from vidlbc.errors import VideoError

@dataclass
class TrainOptions:
    minutes: float | None = option(None, "budget")
    steps: int = option(100, "the same in steps")
    hours: float | None = option(2.5, "the day's budget; null: without end")

@dataclass
class Options:
    choices: ClassVar[dict[str, str]] = {"temporal": "none"}
    input: Many = required("videos: a folder, or a list of paths")
    out: str = option("out/weigh", "where the result goes")
    qp: int = option(32, "quality index, 0-63")
    lr: float = option(0.001, "step of the optimiser")
    sizes: list[float] = option([1, 2], "of the parts")
    fast: bool = option(True, "or slow")
    workers: int | None = option(None, "processes; null: one a core")
    fail: str = option("never", "how")
    log: str = option("${out}/log", "where it is told")
    names: dict[str, int] = option({"a": 1}, "weights by name")
    train: TrainOptions = section(TrainOptions, "the loop")

def main(cfg):
    if cfg.fail == "ours":
        raise VideoError("clip.avi: no video stream\\n  expected a video")
    if cfg.fail == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "/data/00000.tar")
    if cfg.fail == "library":
        raise RuntimeError("write failed: No space left on device (os error 28)")
    if cfg.fail == "interrupt":
        raise KeyboardInterrupt
    if cfg.fail == "bug":
        raise ZeroDivisionError("oh")
    if cfg.fail == "open":
        open("/nowhere/at/all")
    if cfg.fail == "pipe":
        for _ in range(100000):
            print("a line")
    if cfg.fail == "status":
        return 3
    print(json.dumps(OmegaConf.to_container(cfg)))

if __name__ == "__main__":
    run(main, Options, "weigh", folder=Path(__file__).parents[1] / "configs")
'''

FILES = {
    "tools/weigh.py": TOOL,
    "configs/temporal/none.yaml": "kind: none   # which prior\n",
    "configs/temporal/lstm.yaml": "kind: lstm   # which prior\nwidth: 64    # channels of the state\n",
    "configs/experiment/demo.yaml": "# @package _global_\nqp: 20\ntrain:\n  minutes: 3\n",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def weigh(project, tmp_path):
    def call(*arguments, **options):
        return subprocess.run(
            [sys.executable, str(project / "tools" / "weigh.py"), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(REPO)},
            **options,
        )

    return call


@pytest.fixture
def configs(project):
    return project / "configs"


@pytest.fixture(scope="module")
def options(project):
    spec = importlib.util.spec_from_file_location("weigh", project / "tools" / "weigh.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["weigh"] = module  # types of options are looked up there
    spec.loader.exec_module(module)
    yield module.Options
    del sys.modules["weigh"]


@pytest.fixture
def load(options, configs):
    return lambda arguments, folder=None: compose.load(options, "weigh", arguments, folder or configs)


@pytest.fixture
def failure(load):
    def told(*arguments, folder=None):
        with pytest.raises(InputError) as caught:
            load(arguments, folder)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return told


def test_the_defaults_and_every_kind_of_value(load):
    config = load(["input=a"])
    assert (config.qp, config.lr, config.fast, config.workers, config.train.steps) == (32, 0.001, True, None, 100)
    assert config.temporal.kind == "none" and config.log == "out/weigh/log"
    config = load(["input=a", "qp=40", "lr=1", "fast=false", "sizes=[3,4,5]", "workers=2", "train.steps=1e3", "out=x"])
    assert (config.qp, config.lr, config.fast, config.workers, config.train.steps) == (40, 1.0, False, 2, 1000)
    assert isinstance(config.lr, float) and isinstance(config.train.steps, int)
    assert list(config.sizes) == [3, 4, 5] and config.log == "x/log"


@pytest.mark.parametrize(
    "text",
    ["/data/my videos (1)", "a,b", "x=1", "2024", "true", "~/clips", "C:\\clips", "s3://x/[a]{b}", "", "é/ü", "a'b"],
)
def test_a_path_needs_no_quoting(load, text):
    assert load([f"input={text}"]).input == text
    assert load(["input=a", f"out={text}"]).out == text


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20))
def test_any_text_reaches_a_text_option_unchanged(text):
    from omegaconf import OmegaConf

    from vidlbc.run.cli_values import typed

    if "${" in text or text in ("null", "???") or text[0] in "'\"[":
        return
    config = OmegaConf.create({"out": typed("out", text, str, "default")})
    assert config.out == text


def test_several_inputs(load):
    assert list(load(["input=[a/b,c d]"]).input) == ["a/b", "c d"]


def test_groups_and_experiments(load):
    config = load(["input=a", "temporal=lstm", "temporal.width=32"])
    assert (config.temporal.kind, config.temporal.width) == ("lstm", 32)
    for form in ("experiment=demo", "+experiment=demo"):
        config = load(["input=a", form])
        assert (config.qp, config.train.minutes, config.train.steps) == (20, 3, 100)
    config = load(["train.minutes=null", "input=a", "experiment=demo", "qp=21"])
    assert (config.qp, config.train.minutes) == (21, None)
    assert load(["input=a", "+extra.depth=3"]).extra.depth == 3


@pytest.mark.slow
def test_an_experiment_sets_only_what_its_tool_has(load, failure, configs, tmp_path):
    copy = Path(shutil.copytree(configs, tmp_path / "configs"))
    (copy / "experiment" / "recurrent.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /temporal: lstm\n"
        "temporal:\n  width: 32\nfolder: ???\ninput: ${folder}/videos\n"
    )
    config = load(["experiment=recurrent", "folder=f"], copy)
    assert (config.temporal.kind, config.temporal.width, config.input) == ("lstm", 32, "f/videos")
    assert failure("experiment=recurrent", folder=copy) == "missing value: give folder=..."
    (copy / "experiment" / "foreign.yaml").write_text(
        "# @package _global_\nqp: 20\ncrop: 3\ntrain:\n  steps: 5\n  rows: 2\n"
    )
    expected = "experiment=foreign sets train.rows, crop, which weigh does not have: is it another tool's?"
    assert failure("input=a", "experiment=foreign", folder=copy) == expected


def test_null_is_good_where_the_type_says_so(load, failure):
    assert load(["input=a", "train.hours=null"]).train.hours is None
    assert load(["input=a", "workers=null"]).workers is None
    assert failure("input=a", "train.steps=null") == "train.steps=null: expected an integer (default 100)"


def test_the_last_of_two_overrides_wins(load):
    assert load(["input=a", "qp=1", "qp=2"]).qp == 2


@pytest.mark.parametrize(
    "argument, message",
    [
        ("qpp=3", "unknown option 'qpp' (in qpp=3); did you mean qp?"),
        ("minutes=3", "unknown option 'minutes' (in minutes=3); did you mean train.minutes"),
        ("train.step=3", "unknown option 'train.step' (in train.step=3); did you mean train.steps"),
        ("zebra=3", "unknown option 'zebra' (in zebra=3); --help lists all"),
        ("qp.deep=3", "unknown option 'qp.deep' (in qp.deep=3)"),
        ("qp=high", "qp=high: expected an integer (default 32)"),
        ("qp=1.5", "qp=1.5: expected an integer (default 32)"),
        ("qp=true", "qp=true: expected an integer (default 32)"),
        ("qp=null", "qp=null: expected an integer (default 32)"),
        ("qp=1,2", "qp=1,2: expected an integer (default 32)"),
        ("lr=fast", "lr=fast: expected a number (default 0.001)"),
        ("fast=3", "fast=3: expected true or false (default True)"),
        ("sizes=3", "sizes=3: expected a list of numbers, as [1,2] (default [1, 2])"),
        ("sizes=[a]", "sizes=[a]: expected a list of numbers, as [1,2] (default [1, 2])"),
        ("sizes=[1", "sizes=[1: cannot read the value; quote it: sizes=\"'[1'\""),
        ("train=3", "train=3: train is a section; set one of train.minutes, train.steps"),
        ("temporal=lsmt", "temporal=lsmt: no such choice; expected one of lstm, none; did you mean lstm?"),
        ("experiment=x", "experiment=x: no such choice; expected one of demo"),
        ("--qp=3", "--qp=3 is not an option: write qp=3 without dashes (--help lists all)"),
        ("-m", "-m is not supported: run the command once for each value"),
        ("videos", "'videos' is not key=value (--help lists all options)"),
        ("=3", "'=3' is not key=value (--help lists all options)"),
    ],
)
def test_a_bad_override_is_named_with_what_was_expected(failure, argument, message):
    assert failure("input=a", argument).startswith(message)


def test_a_missing_value_is_named_with_its_meaning(failure):
    assert failure("qp=3") == "missing value: give input=... (videos: a folder, or a list of paths)"


def test_an_experiment_is_held_to_the_types(failure, configs, tmp_path):
    copy = Path(shutil.copytree(configs, tmp_path / "configs"))
    (copy / "experiment" / "wrong.yaml").write_text("# @package _global_\nqp: many\n")
    assert failure("input=a", "experiment=wrong", folder=copy) == "qp=many: expected an integer"
    (copy / "experiment" / "wrong.yaml").write_text("# @package _global_\ntrain:\n  steps: null\n")
    assert failure("input=a", "experiment=wrong", folder=copy) == "train.steps=None: expected an integer"


def test_a_path_in_brackets_is_a_path_where_there_is_one(load, tmp_path):
    folder = tmp_path / "[a,b]"
    assert list(load([f"input=[{tmp_path}/a,b]"]).input) == [f"{tmp_path}/a", "b"]
    folder.mkdir()
    assert load([f"input={folder}"]).input == str(folder)


def test_a_mapping_takes_names_of_its_own(load):
    assert load(["input=a", "names.a=3", "+names.b=4"]).names == {"a": 3, "b": 4}


@pytest.mark.slow
def test_help_lists_every_default_with_its_comment(weigh):
    done = weigh("--help")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("usage: python tools/weigh.py key=value ...\n\nWeigh some videos.\n")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for line in (
        "input=??? # videos: a folder, or a list of paths",
        "qp=32 # quality index, 0-63",
        "lr=0.001 # step of the optimiser",
        "sizes=[1,2] # of the parts",
        "fast=true # or slow",
        "workers=null # processes; null: one a core",
        "train.minutes=null # budget",
        "temporal.kind=none # which prior",
        "temporal=lstm|[none]",
        "experiment=demo",
    ):
        assert line in lines
    chosen = weigh("--help", "temporal=lstm").stdout
    assert "temporal.width=64" in chosen and "# channels of the state" in chosen


def test_cfg_prints_the_composed_config(weigh):
    done = weigh("--cfg", "qp=7")
    assert done.returncode == 0 and "qp: 7\n" in done.stdout and "input: ???\n" in done.stdout


@pytest.mark.slow
def test_a_good_run_from_any_folder_leaves_nothing_behind(weigh, tmp_path):
    done = weigh("input=a")
    assert (done.returncode, done.stderr) == (0, "") and '"qp": 32' in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert weigh("input=a", "fail=status").returncode == 3


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["qpp=3"], 2, "error: unknown option 'qpp' (in qpp=3); did you mean qp?\n"),
        (["fail=ours"], 2, "error: clip.avi: no video stream expected a video\n"),
        (
            ["fail=full"],
            2,
            "error: no space left on the disk (writing /data/00000.tar): free some, "
            "then run the same command to resume\n",
        ),
        (["fail=library"], 2, "error: no space left on the disk: free some, then run the same command to resume\n"),
        (["fail=open"], 2, "error: /nowhere/at/all: No such file or directory\n"),
        (["fail=interrupt"], 130, "\ninterrupted: run the same command to resume\n"),
    ],
)
def test_a_failure_is_one_line_and_a_status(weigh, arguments, code, message):
    done = weigh("input=a", *arguments)
    assert (done.returncode, done.stderr) == (code, message)


@pytest.mark.slow
def test_debug_shows_the_stack_trace_and_a_defect_always_does(weigh):
    done = weigh("input=a", "fail=ours", "debug=true")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("error: clip.avi: no video stream expected a video\n")
    done = weigh("input=a", "fail=bug")
    assert done.returncode == 1 and "Traceback" in done.stderr and "ZeroDivisionError: oh" in done.stderr


def test_output_into_a_closed_pipe_is_no_error(project):
    shell = f"{sys.executable} {project}/tools/weigh.py input=a fail=pipe | head -1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "a line\n", "")


def test_explain_leaves_defects_to_the_stack_trace():
    assert explain(ValueError("x")) is None
    assert explain(VidlbcError("two\n  lines")) == "two lines"
    missing = "the package cv2 is needed for this and not installed: pip install opencv-python-headless"
    assert explain(ModuleNotFoundError("No module named 'cv2'", name="cv2")) == missing
    assert explain(ModuleNotFoundError("No module named 'vidlbc.x'", name="vidlbc.x")) is None
    old = explain(ImportError("pyarrow requires NumPy 2.0 or newer, found 1.26.4"))
    assert old is not None and old.startswith(
        "pyarrow requires NumPy 2.0 or newer, found 1.26.4: pip install 'pyarrow<26'"
    )
    assert explain(PermissionError(13, "Permission denied", "/root/x")) == "/root/x: Permission denied"


# ---- the project's own configs


def tools():
    return sorted(path.stem for path in (REPO / "tools").glob("*.py") if path.stem != "setup_env")


@pytest.mark.slow
@pytest.mark.parametrize("name", tools())
def test_every_tool_explains_itself(run_tool, name):
    done = run_tool(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    command = "COMMAND " if "command" in dict(declared(commands.command_module(name).Options)) else ""
    assert done.stdout.startswith(f"usage: python tools/{name}.py {command}key=value ...\n")
    options = done.stdout.partition("options, with their defaults")[2].partition("\n\n")[0].splitlines()[1:]
    assert options and [line for line in options if "# " not in line] == [], "an option without help"


@pytest.mark.slow
@pytest.mark.parametrize("name", tools())
def test_every_tool_refuses_an_unknown_override(call_tool, name):
    done = call_tool(name, "no_such_option=1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown option 'no_such_option' (in no_such_option=1)")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", tools())
def test_every_choice_of_every_group_composes(name):
    options = commands.command_module(name).Options
    _, choices = compose.load_with_choices(options, name, [])
    for group in choices:
        for choice in options_of(REPO / "configs", group):
            _, picked = compose.load_with_choices(options, name, [f"{group}={choice}"])
            assert picked[group] == choice
