"""The checkpoint that is measured, and the same numbers as GGUF; both are written once, to target/compare."""

import subprocess
import sys
from pathlib import Path

OUT = Path("target/compare")
HERE = Path(__file__).parent


def run(script, *arguments):
    subprocess.run([sys.executable, HERE / script, *map(str, arguments)], check=True)


def twin(name, dense):
    """Paths of `mini`, of `small` or of a checkpoint's directory, and of its twin with dense parts in `bf16` or `q8_0`."""
    folder = Path(name)
    if name in ("mini", "small"):
        folder = OUT / name
        if not (folder / "tiktoken.model").exists():
            run("synthetic.py", name, folder)
    file = OUT / f"{folder.name}-{dense}.gguf"
    if not file.exists() or file.stat().st_mtime < (folder / "config.json").stat().st_mtime:
        run("to_gguf.py", folder, file, dense)
    return folder, file


def add_options(parser):
    """What both comparisons can be asked."""
    parser.add_argument("model", nargs="?", default="mini", help="mini, small or the directory of a checkpoint (mini)")
    parser.add_argument("rounds", nargs="?", type=int, default=5, help="turns of each side; medians are shown (5)")
    parser.add_argument("--dense", choices=["bf16", "q8_0"], default="bf16",
                        help="keep what every token uses as it is or in 8 bits, on all sides")
    parser.add_argument("--threads", type=int, default=None, help="of each side; all cores if not given")
