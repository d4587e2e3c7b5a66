"""Compare the dashboards with the types that Grafana publishes of them: `make grafana`.

Grafana's own front end is made of these types. They are on npm alone, as is the compiler that reads them, so this needs
npm and node, and is no part of `make test`; there, a real Prometheus answers every query of every dashboard.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from conformance import npm

_SCHEMA: Final = (
    "@grafana/schema@13.2.3",
    "rk8FEO7yuFfRTK/JD39747SZFQ+iCTQbpm6Mh2OjnqGx/g/uQQFx56t64eCLXWEyoR68ru4cigcGKrXk+ozrLg==",
)
_COMPILER: Final = (
    "typescript@5.9.3",
    "jl1vZzPDinLr9eUt3J/t7V6FgNEw9QjvBPdysz9KfQDD41fQrC2Y4vKQdiaUpFT4bXlb1RHhLpp8wtm6M5TgSw==",
)
_DASHBOARDS: Final = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"
_OPTIONS: Final = ("--noEmit", "--skipLibCheck", "--strict", "--module", "esnext", "--moduleResolution", "bundler")
# JSON writes an enumeration's values as plain strings, which TypeScript takes for no member of it.
_PLAIN: Final = "type Plain<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;"


def _panels(panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in panels:
        yield panel
        yield from _panels(panel.get("panels", []))


def program(dashboards: dict[str, Any], types: Path) -> str:
    """A TypeScript program that is right if all these dashboards are, and their panels' own options."""
    kinds: set[str] = set()
    said = []
    for name, dashboard in dashboards.items():
        said.append(f"const {name}: Plain<Dashboard> = {json.dumps(dashboard, indent=1)};")
        for number, panel in enumerate(_panels(dashboard["panels"])):
            kind = panel["type"].replace("-", "")
            parts = {
                "Options": panel.get("options"),
                "FieldConfig": panel.get("fieldConfig", {}).get("defaults", {}).get("custom"),
            }
            for part, value in parts.items():
                if value is not None:
                    kinds.add(kind)
                    one = f"{name}_{part.lower()}_{number}"
                    said.append(f"const {one}: Plain<Partial<{kind}.{part}>> = {json.dumps(value)};")
    asked = [f'import * as {kind} from "{types}/composable/{kind}/panelcfg/x/types.gen";' for kind in sorted(kinds)]
    asked.append(f'import type {{ Dashboard }} from "{types}/dashboard/x/types.gen";')
    return "\n".join([*asked, _PLAIN, *said]) + "\n"


def main() -> int:
    dashboards = {
        file.stem.replace("-", "_"): json.loads(file.read_text()) for file in sorted(_DASHBOARDS.glob("*.json"))
    }
    with tempfile.TemporaryDirectory() as folder:
        schema = npm.fetched(*_SCHEMA, Path(folder))
        compiler = npm.fetched(*_COMPILER, Path(folder))
        file = Path(folder) / "dashboards.ts"
        file.write_text(program(dashboards, schema / "dist" / "types" / "raw"))
        done = subprocess.run(["node", compiler / "lib" / "tsc.js", *_OPTIONS, file], cwd=folder)
    if not done.returncode:
        sys.stdout.write(f"{len(dashboards)} dashboards are what {_SCHEMA[0]} says\n")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
