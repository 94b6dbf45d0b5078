"""Puts a page together that runs an exported .tflite in the browser, from a static folder.

    python -m edge.build_web --model=OUT/localizer_int8.tflite --output_dir=site
    python -m http.server --directory site

The folder holds all that the page needs: the page of edge/web, the model, a golden picture with
its mask (see edge/golden.py), and LiteRT.js with its wasm files, which npm downloads once. Nothing
is loaded from elsewhere afterwards.
"""

import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

from absl import app, flags

from edge import golden
from edge.runtime import LocalizerRuntime
from wsol_tf import programs

PAGE = pathlib.Path(__file__).parent / "web"
LITERT_VERSION = "2.5.3"
# Packages of npm -> their files that are needed, and the names these get in the site's litert/.
LITERT = {
    "@litertjs/core": {"dist/index.js": "core.js"}
    | {
        f"wasm/litert_wasm_{kind}internal.{suffix}": f"wasm/litert_wasm_{kind}internal.{suffix}"
        for kind in ("", "threaded_", "compat_")
        for suffix in ("js", "wasm")
    },
    "@litertjs/wasm-utils": {"dist/index.js": "wasm-utils.js"},
}


def build(model, output_dir):
    """Writes the site.

    Args:
        model: a .tflite of edge.export.
        output_dir: folder to write to; it is made. Its litert/ is kept if it is there.

    Raises:
        ValueError: the model is not of edge.export, or npm can't bring LiteRT.js.
    """
    localizer = LocalizerRuntime(model)
    if not PAGE.is_dir():
        raise ValueError(f"The page is built from a checkout of the project; {PAGE} is missing.")
    programs.make_output_dir(output_dir)
    output_dir = pathlib.Path(output_dir)
    fetch_litert(output_dir / "litert")
    shutil.copytree(PAGE, output_dir, dirs_exist_ok=True)
    shutil.copy(model, output_dir / "localizer.tflite")
    golden.write(localizer, output_dir)


def fetch_litert(folder):
    """Brings LiteRT.js and its wasm files from npm, unless they are there.

    Raises:
        ValueError: there is no npm, or it failed.
    """
    stamp = folder / "VERSION"
    if stamp.is_file() and stamp.read_text() == LITERT_VERSION:
        return
    if not shutil.which("npm"):
        raise ValueError("npm is missing: install Node.js, or copy litert/ from another site.")
    with tempfile.TemporaryDirectory() as place:
        names = [f"{package}@{LITERT_VERSION}" for package in LITERT]
        done = subprocess.run(
            ["npm", "pack", "--silent", *names], cwd=place, capture_output=True, text=True
        )
        if done.returncode:
            raise ValueError(f"npm could not bring {', '.join(names)}: {done.stderr.strip()}")
        for package, files in LITERT.items():
            archive = f"{package[1:].replace('/', '-')}-{LITERT_VERSION}.tgz"
            with tarfile.open(os.path.join(place, archive)) as packed:
                for source, target in files.items():
                    path = folder / target
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(packed.extractfile(f"package/{source}").read())
    stamp.write_text(LITERT_VERSION)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument '{argv[1]}': settings are given as --name=value.")
    output_dir = flags.FLAGS.output_dir
    with programs.plain_ending():
        build(flags.FLAGS.model, output_dir)
    print(f"Wrote the page to {output_dir}. Look at it on http://localhost:8000 with\n"
          f"  python -m http.server --directory {output_dir}")  # fmt: skip


def define_flags():
    """Defines the flags of this program."""
    flags.DEFINE_string("model", None, "The .tflite file that edge.export wrote.", required=True)
    flags.DEFINE_string("output_dir", None, "Folder for the page; it is made.", required=True)


if __name__ == "__main__":
    define_flags()
    app.run(main)
