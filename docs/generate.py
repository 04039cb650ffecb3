"""Writes the pages of `docs/` that are made from the code: `python docs/generate.py`.

    commands.md         from the Typer app
    profile-fields.md   from `sshr_deploy.profiles.Profile`
    recipe-fields.md    from `sshr_deploy.train.recipe.Recipe`
    schemas.md          from the JSON Schemas of the results and of benchmarks
    measured.md         from the files of `benchmarks/results/`

`tests/docs/test_generated.py` compares the pages with the code.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import typer
from pydantic import TypeAdapter

from sshr_deploy.benchmarks.report.page import measured_parts
from sshr_deploy.benchmarks.report.schema import make_schema as make_benchmark_schema
from sshr_deploy.cli import app
from sshr_deploy.cli.help import Entry, entries
from sshr_deploy.profiles import CamWeights, Profile, SeamlessRule, TissueClass
from sshr_deploy.runtime.results.schemas import NAMES, make_schema
from sshr_deploy.train.recipe import (
    Augmentation,
    BatchNormMode,
    HfrmTraining,
    Optimiser,
    Recipe,
    TrainingPrecision,
)

DOCS = Path(__file__).resolve().parent
NOTE = "<!-- Made by `python docs/generate.py`; change the code, not this page. -->"
DOCUMENTS = {
    "summary": "summary.json",
    "record": "a file in runs/",
    "run": "run.json",
    "benchmark": "a benchmark",
}
BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
}

Schema = Mapping[str, Any]


def pages() -> dict[str, str]:
    """Names of the generated pages and their Markdown."""
    return {
        "commands.md": commands_page(),
        "profile-fields.md": profile_page(),
        "recipe-fields.md": recipe_page(),
        "schemas.md": schemas_page(),
        "measured.md": measured_page(),
    }


def commands_page() -> str:
    """Every command with its arguments and options, as `--help` states them."""
    root = typer.main.get_command(app)
    parts = [
        "# Commands",
        "What `--help` says, on one page. Exit codes, error codes and settings of the terminal: "
        "[the command line](command-line.md).",
    ]
    for name, command in _commands(root, "sshr-deploy"):
        if command is not root and not getattr(command, "commands", None):
            parts += [f"## {name.removeprefix('sshr-deploy ')}", *_command_parts(name, command)]
    return _page(parts)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for child in getattr(command, "commands", {}).values():
        if not child.hidden:
            yield from _commands(child, f"{name} {child.name}")


def _command_parts(name: str, command: Any) -> list[str]:
    context = typer.Context(command, info_name=name)
    usage = re.sub(r"[{}]", "", " ".join([name, *command.collect_usage_pieces(context)]))
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    parts = [f"```text\n{usage}\n```", *map(_prose, paragraphs)]
    for panel, found in groupby(entries(command, context), key=lambda entry: entry.panel):
        rows = [_entry_row(entry) for entry in found if "--help" not in entry.names]
        parts.append(_table((panel.lower(), "meaning"), rows))
    return parts


def _entry_row(entry: Entry) -> tuple[str, str]:
    names = f"{entry.names} {entry.placeholder}".strip().replace("|", " or ")
    facts = "; ".join(map(_prose, entry.facts))
    text = f"{_prose(entry.help)} <em>{facts}</em>" if facts else _prose(entry.help)
    return f"`{names}`", text


def profile_page() -> str:
    """The fields of a profile's TOML file."""
    schema = Profile.model_json_schema()
    parts = [
        "# Profile fields",
        "A profile holds what depends on a data set's classes. `sshr_deploy/profiles/` has those "
        "that are shipped; `--profile mine.toml` takes your own. Fields that are unknown, missing "
        "or wrong are all named.",
        _field_table(Profile, schema),
    ]
    tables = (
        ("`[[classes]]`, one for each class", TissueClass),
        ("`[cam_weights]`", CamWeights),
        ("`[seamless]`", SeamlessRule),
    )
    for title, model in tables:
        text = _first_paragraph(model)
        parts += [f"## {title}", text, _field_table(model, schema["$defs"][model.__name__])]
    parts += ["## Example", "```toml\n" + _text_of("sshr_deploy/profiles/luad.toml") + "```"]
    return _page(parts)


def recipe_page() -> str:
    """The fields of a recipe's TOML file."""
    schema = TypeAdapter(Recipe).json_schema()
    parts = [
        "# Recipe fields",
        "A recipe holds everything about a training but the data, the profile and the width. "
        "`train/recipes/` has those that are shipped; `--recipe mine.toml` takes your own.",
        _field_table(Recipe, schema),
        "## `[augmentation]`",
        _first_paragraph(Augmentation),
        _field_table(Augmentation, schema["$defs"]["Augmentation"]),
    ]
    for choice in (Optimiser, BatchNormMode, TrainingPrecision, HfrmTraining):
        docs = _field_docs(choice)
        rows = [(f'`"{value}"`', _prose(docs.get(value.name, ""))) for value in choice]
        parts += [f"## {choice.__name__}", _first_paragraph(choice)]
        parts.append(_table(("value", "meaning"), rows))
    parts += ["## Example", "```toml\n" + _text_of("train/recipes/paper.toml") + "```"]
    return _page(parts)


def schemas_page() -> str:
    """The fields of the documents that runs and benchmarks write."""
    schemas = {name: make_schema(name) for name in NAMES} | {"benchmark": make_benchmark_schema()}
    parts = [
        "# JSON Schemas",
        "The documents of the results follow JSON Schemas (2020-12). The files are in the "
        "package, `sshr_deploy/runtime/results/schemas/`, and here: "
        + ", ".join(f"[{name}](schemas/{name}.schema.json)" for name in NAMES)
        + ". That of [benchmarks](benchmark.schema.json), `benchmark ... --json FILE`, is "
        "`benchmarks/report/benchmark.schema.json`. `schema_version` grows when a field changes "
        "its meaning or goes; new fields may come at any time. What the files hold is told in "
        "[result files](formats.md).",
    ]
    known: set[str] = set()
    for name, schema in schemas.items():
        parts.append(f"## {DOCUMENTS[name]}")
        if "properties" in schema:
            parts.append(_schema_table(schema, schema))
        else:
            kinds = [_type_text(kind) for kind in schema["anyOf"]]
            parts.append("One of " + ", ".join(kinds) + ".")
        defs = schema.get("$defs", {})
        whole = [kind["$ref"].rsplit("/", 1)[1] for kind in schema.get("anyOf", ())]
        for part in dict.fromkeys([*whole, *defs]):
            content = defs[part]
            if part not in known:
                known.add(part)
                about = _prose(content.get("description", "").split("\n\n")[0])
                is_object = "properties" in content
                shown = _schema_table(content, schema) if is_object else _type_text(content)
                parts += [f"### {part}", about, shown]
    return _page(parts)


def measured_page() -> str:
    """All that was measured and kept, with its machines, and what was not."""
    parts = [
        "# Measured",
        "Every figure is from a file of `benchmarks/results/`, where the samples are. A speed "
        "stands beside the share of mask pixels that agree with PyTorch's in FP32. How to measure "
        "your own machine: [benchmarks](benchmarks.md).",
        *measured_parts(DOCS.parent / "benchmarks" / "results", DOCS / "measured"),
    ]
    return _page(parts)


def _schema_table(schema: Schema, whole: Schema) -> str:
    required = schema.get("required", ())
    rows = []
    for name, field in schema["properties"].items():
        mark = "" if name in required else " (may be missing)"
        of_type = whole["$defs"][field["$ref"].rsplit("/", 1)[1]] if "$ref" in field else {}
        text = field.get("description") or of_type.get("description", "").split("\n\n")[0]
        rows.append((f"`{name}`", _type_text(field) + mark, _prose(text)))
    return _table(("field", "type", "meaning"), rows)


def _field_table(model: type, schema: Schema) -> str:
    docs = _field_docs(model)
    rows = []
    for name, field in schema["properties"].items():
        default = json.dumps(field["default"]) if "default" in field else "-"
        if name in schema.get("required", ()):
            default = "required"
        elif isinstance(field.get("default"), dict | list) or field.get("default", "") is None:
            default = "-"
        value = _type_text(field, link=False)
        shown = default if default in ("-", "required") else f"`{default}`"
        rows.append((f"`{name}`", value, shown, _prose(docs.get(name, ""))))
    return _table(("field", "value", "default", "meaning"), rows)


def _type_text(field: Schema, link: bool = True) -> str:
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})" if link else name
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    for union in ("anyOf", "oneOf", "allOf"):
        if union in field:
            return " or ".join(dict.fromkeys(_type_text(part, link) for part in field[union]))
    if "prefixItems" in field:
        parts = dict.fromkeys(_type_text(part, link) for part in field["prefixItems"])
        return f"[{len(field['prefixItems'])} x {' or '.join(parts)}]"
    kind = field.get("type", "any")
    bounds = [text.format(_short(field[key])) for key, text in BOUNDS.items() if key in field]
    if kind == "array":
        inner = _type_text(field.get("items", {}), link)
        bounded = f"list of ({inner})" if "," in inner else f"list of {inner}"
        return ", ".join([bounded, *bounds])
    if kind == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"names to {_type_text(field['additionalProperties'], link)}"
    return ", ".join([kind, *bounds])


def _short(number: float) -> str:
    return f"{number:g}" if abs(number) < 1e6 else f"{number:.0e}".replace("e+0", "e")


def _field_docs(cls: type) -> dict[str, str]:
    """Texts below the fields of a class, as its source has them."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
    docs = {}
    for field, text in pairwise(body):
        target = field.target if isinstance(field, ast.AnnAssign) else None
        if isinstance(field, ast.Assign):
            (target,) = field.targets  # type: ignore[assignment]
        if isinstance(target, ast.Name) and isinstance(text, ast.Expr):
            docs[target.id] = " ".join(ast.literal_eval(text.value).split())
    return docs


def _first_paragraph(cls: type) -> str:
    return _prose((cls.__doc__ or "").split("\n\n")[0])


def _prose(text: str) -> str:
    """One line of Markdown in which stars, bars and angle brackets are themselves."""
    text = " ".join(text.split()).replace("``", "`")
    escaped = {"<": "&lt;", "|": "\\|", "*": "\\*"}
    return re.sub(r"(`[^`]*`)|([<|*])", lambda found: found[1] or escaped[found[2]], text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text_of(path: str) -> str:
    return (DOCS.parent / path).read_text("utf-8")


def _page(parts: Iterable[str]) -> str:
    title, *rest = [part for part in parts if part]
    return "\n\n".join([title, NOTE, *rest]) + "\n"


if __name__ == "__main__":
    for page, text in pages().items():
        (DOCS / page).write_text(text, "utf-8")
        print(DOCS / page)
