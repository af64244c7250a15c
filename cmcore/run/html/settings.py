"""Settings, versions and how to cite, as HTML."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from html import escape
from importlib.metadata import version
from typing import Any

from cmcore import networks, recipes
from cmcore.run.config import Config, option
from cmcore.run.network_settings import written
from cmcore.run.plan import Plan


def section(config: Config, plan: Plan, versions: Mapping[str, str]) -> str:
    """Return the command that trains such a run again, and tables of what it amounted to."""
    parts = {
        "Recipe": _flat({"name": plan.recipe.name, **_fields(plan.recipe)}),
        "Network": _flat(networks.to_config(plan.architecture)),
        "Data": _flat(asdict(plan.data)),
        "Run": _flat({k: v for k, v in asdict(config).items() if k not in ("options", "network_settings")}),
        "Versions": dict(versions),
    }
    tables = "".join(f"<div><h3>{name}</h3>{_table(rows)}</div>" for name, rows in parts.items())
    return f'<pre tabindex="0">{escape(command(config))}</pre><div class="tables">{tables}</div>'


def command(config: Config) -> str:
    """Return what to type to train such a run again."""
    default, words = Config(), ["cmcore", "train", "--out", "RUN"]
    for name, value in asdict(config).items():
        if value == getattr(default, name) or value is None:
            continue
        if name == "options":
            words += [w for k, v in value.items() for w in ("--set", f"{k}={_typed(v)}")]
        elif name == "network_settings":
            words += [w for k, v in value.items() for w in ("--set-network", f"{k}={written(v)}")]
        elif name == "compiled":
            words.append("--compile" if value else "--no-compile")
        elif name == "fast_jpegs":
            words.append("--whole-jpegs")
        elif name == "range":
            words.append(f"--range={_typed(value)}")
        elif value is True:
            words.append(option(name))
        else:
            words += [option(name), "x".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)]
    return " ".join(map(shlex.quote, words))


def citation(plan: Plan) -> str:
    """Return the BibTeX of the method's paper and of the program."""
    program = (
        f"@software{{cmcore,\n  title={{cmcore: consistency models written once against the Python Array API}},\n"
        f"  author={{{{The cmcore authors}}}},\n  version={{{version('cmcore')}}}\n}}"
    )
    return f'<pre tabindex="0">{escape(recipes.cite(plan.recipe.name))}\n\n{escape(program)}</pre>'


def _typed(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(f"{v:g}" for v in value) if isinstance(value, (tuple, list)) else str(value)


def _fields(thing: Any) -> dict[str, Any]:
    return asdict(thing) if is_dataclass(thing) and not isinstance(thing, type) else {}


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings within settings beside the others, and only what is set."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value)
        elif value is not None and value != () and value != "":
            flat[name] = ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    return flat


def _table(rows: Mapping[str, str]) -> str:
    cells = (f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows.items())
    return f"<table>{''.join(cells)}</table>"
