"""`--config`: options from a file, and what is wrong with it."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from sshr_deploy.cli.commands import command
from sshr_deploy.cli.options import NAME_OR_FILE
from sshr_deploy.errors import UsageError
from tests.cli.command import run_here


class Mode(StrEnum):
    FAST = "fast"
    SLOW = "slow"


@pytest.fixture
def got() -> dict[str, Any]:
    return {}


@pytest.fixture
def app(got: dict[str, Any]) -> typer.Typer:
    app = typer.Typer()

    @command(app, config=True)
    def run(
        *,
        out: Annotated[Path, typer.Option()],
        inputs: Annotated[list[Path] | None, typer.Argument()] = None,
        log: Annotated[Path | None, typer.Option("--log-json")] = None,
        batch: Annotated[int | None, typer.Option(min=1)] = None,
        mpp: float = 0.25,
        mode: Mode = Mode.FAST,
        name: Annotated[str, typer.Option(metavar=NAME_OR_FILE)] = "",
        on_done: str = "",
        include: list[str] | None = None,
        quiet: Annotated[bool, typer.Option("--quiet")] = False,
    ) -> None:
        got.update(locals())

    @command(app, config=True)
    def other() -> None:
        pass

    return app


def invoke(app: typer.Typer, path: Path, *args: str) -> None:
    CliRunner().invoke(app, ["run", "--config", str(path), *args], catch_exceptions=False)


def test_every_kind_of_option(app: typer.Typer, got: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("""
        out = "results"
        inputs = ["a.svs", "/abs/b.svs"]
        log_json = "-"
        batch = 4
        mpp = 1
        mode = "slow"
        name = "mine.toml"
        on-done = "notify.toml"
        include = ["*.svs", "*.toml"]
        quiet = true
    """)
    invoke(app, path)
    got.pop("got")
    assert got == {
        "out": tmp_path / "results",
        "inputs": [tmp_path / "a.svs", Path("/abs/b.svs")],
        "log": Path("-"),
        "batch": 4,
        "mpp": 1.0,
        "mode": Mode.SLOW,
        "name": str(tmp_path / "mine.toml"),
        "on_done": "notify.toml",
        "include": ["*.svs", "*.toml"],
        "quiet": True,
    }


def test_the_command_line_goes_before_the_table_and_that_before_the_rest(
    app: typer.Typer, got: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "run.toml"
    path.write_text("""
        out = "for all"
        batch = 1
        mpp = 0.5
        include = ["*.svs"]
        inputs = ["a.svs"]
        [run]
        batch = 2
        mpp = 0.25
        [other]
        not_even = "looked at"
    """)
    invoke(app, path, "--mpp", "2", "--include", "*.tif", "b.svs")
    assert (got["out"], got["batch"], got["mpp"]) == (tmp_path / "for all", 2, 2.0)
    assert (got["include"], got["inputs"]) == (["*.tif"], [Path("b.svs")])
    assert got["quiet"] is False


def test_a_single_value_does_for_a_list(
    app: typer.Typer, got: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "run.toml"
    path.write_text('out = "~/r"\ninclude = "*.svs"\n')
    invoke(app, path)
    assert got["include"] == ["*.svs"]
    assert got["out"] == Path.home() / "r"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("batsh = 4", "{path}: run has no option 'batsh'; did you mean batch?"),
        ("[run]\nzzz = 4", "{path} [run]: run has no option 'zzz'"),
        ("[runn]\nbatch = 4", "{path}: [runn] is no command; did you mean run?"),
        ("[run.sub]\nbatch = 4", "{path} [run]: [sub] is no command; leave it out"),
        ("config = 'x'", "{path}: run has no option 'config'"),
        ("batch = 0", "{path}: batch: Input should be greater"),
        ("batch = 'many'", "{path}: batch: Input should be a valid integer"),
        ("batch = true", "{path}: batch: give a value; it is no switch"),
        ("batch = [1, 2]", "{path}: batch takes one value, not a list"),
        ("quiet = 1", "{path}: quiet: give true or false"),
        ("name = 3.10", "{path}: name: give a text in quotes, not 3.1"),
        ("name = 2026-11-28", "{path}: name: give a text or a number, not 2026-11-28"),
        ("include = ['*.svs', 3]", "{path}: include: give a text in quotes, not 3"),
        ("include = [['*.svs']]", "{path}: include: give one list, without lists in it"),
        ("out = ''", "{path}: out: give a path; . is the folder of this file"),
        ("inputs = ['a', '']", "{path}: inputs: give a path; . is the folder of this file"),
        ("log_json = 'a'\nlog-json = 'b'", "{path}: log_json and log-json are the same option"),
        ("[run]\nlog-json = 'a'\nlog_json = 'b'", "{path} [run]: log-json and log_json are"),
        ("mode = 'medium'", "{path}: mode: 'medium' is not one of 'fast', 'slow'"),
        ("mpp", "{path} is not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(app: typer.Typer, tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(content)
    with pytest.raises(UsageError) as raised:
        invoke(app, path, "--out", "r")
    assert str(raised.value).startswith(says.format(path=path))


def test_all_names_that_are_near_are_offered(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("modle = 'x'")
    done = run_here("infer", "--config", path)
    assert done.stderr.endswith("infer has no option 'modle'; did you mean mode or model?\n")


def test_a_value_that_does_not_fit_is_told_in_plain_words() -> None:
    done = run_here("infer", "--mode", "seemless")
    error = done.stderr.splitlines()[-1]
    assert error == (
        "Error: Invalid value for '--mode': 'seemless' is not one of 'seamless', 'reference'"
    )


def test_colours_can_be_turned_off(
    app: typer.Typer, got: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    path = tmp_path / "run.toml"
    path.write_text("no-color = true\n")
    invoke(app, path, "--out", "r")
    assert os.environ["NO_COLOR"] == "1" and got["out"] == Path("r")


def test_a_byte_order_mark_is_no_part_of_the_text(
    app: typer.Typer, got: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "run.toml"
    path.write_text("batch = 4\n", encoding="utf-8-sig")
    invoke(app, path, "--out", "r")
    assert got["batch"] == 4


def test_another_encoding_is_named(app: typer.Typer, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("batch = 4\n", encoding="utf-16")
    with pytest.raises(UsageError, match="it is not UTF-8 text; save it as UTF-8"):
        invoke(app, path, "--out", "r")


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = run_here("infer", "--config", tmp_path / "none.toml")
    assert done.returncode == 2
    assert done.stderr.startswith(f"sshr-deploy: error: {tmp_path / 'none.toml'} cannot be read")
    assert len(done.stderr.splitlines()) == 1


def test_a_command_of_a_group_has_its_table(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[benchmark.latency]\nbundle = 'none'\nbatches = '0'\n[infer]\nmpp = 1\n")
    done = run_here("benchmark", "latency", "--config", path)
    assert done.returncode == 2
    assert "--batches '0': give whole numbers" in done.stderr


def test_infer_takes_its_inputs_from_the_file(
    small_bundle_dir: Path, repo_root: Path, tmp_path: Path
) -> None:
    patch = next((repo_root / "export" / "qualification").glob("*.png"))
    path = tmp_path / "run.toml"
    path.write_text(
        f"model = '{small_bundle_dir}'\n[infer]\ninputs = '{patch}'\nout = 'r'\njson = true\n"
    )
    done = run_here("infer", "--config", path, "--quiet")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r" / patch.name / "mask.png").is_file()
