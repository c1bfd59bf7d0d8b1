"""The site: MyST pages as they are read in the repository, furo, every warning an error (`make docs`)."""

import tomllib
from pathlib import Path

_PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "broker_crypto"
author = "the authors of broker_crypto"
copyright = author
release = version = _PROJECT["version"]

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

html_theme = "furo"
html_title = f"broker_crypto {release}"
html_copy_source = False
