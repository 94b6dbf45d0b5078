"""Puts a page together that runs an exported .tflite in the browser, from a static folder.

    python -m edge.build_web --model=OUT/localizer_int8.tflite --output_dir=site
    python -m http.server --directory site

The folder holds everything that the page needs: the page of edge/web, the model, a golden picture
with its mask (see edge/golden.py), and LiteRT.js with its wasm files, which npm downloads once. The
page itself loads nothing from elsewhere.
"""

import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

from absl import flags

from edge import golden
from edge.runtime import LocalizerRuntime
from wsol_tf import programs

PAGE = pathlib.Path(__file__).parent / "web"
LITERT_VERSION = "2.5.3"
# npm packages -> the files that are needed, and the names these get in the site's litert/.
LITERT = {
    "@litertjs/core": {"dist/index.js": "core.js"}
    | {
        f"wasm/litert_wasm_{kind}internal.{suffix}": f"wasm/litert_wasm_{kind}internal.{suffix}"
        for kind in ("", "threaded_", "compat_")
        for suffix in ("js", "wasm")
    },
    "@litertjs/wasm-utils": {"dist/index.js": "wasm-utils.js"},
}


def build_site(model: str, output_dir: str) -> None:
    """Writes the site.

    Args:
        model: a .tflite of edge.export.
        output_dir: folder to write to; it is made. Its litert/ is kept if it is there.

    Raises:
        ValueError: edge.export did not write the model, or npm can't download LiteRT.js.
    """
    localizer = LocalizerRuntime(model)
    if not PAGE.is_dir():
        raise ValueError(f"The page is built from a checkout of the project; {PAGE} is missing.")
    programs.make_output_dir(output_dir)
    site = pathlib.Path(output_dir)
    fetch_litert(site / "litert")
    shutil.copytree(PAGE, site, dirs_exist_ok=True)
    shutil.copy(model, site / "localizer.tflite")
    golden.write(localizer, site)


def fetch_litert(folder: pathlib.Path) -> None:
    """Downloads LiteRT.js and its wasm files from npm, unless they are there.

    Args:
        folder: where they are put; it is made.

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
            raise ValueError(f"npm could not download {', '.join(names)}: {done.stderr.strip()}")
        for package, files in LITERT.items():
            archive = f"{package[1:].replace('/', '-')}-{LITERT_VERSION}.tgz"
            with tarfile.open(os.path.join(place, archive)) as packed:
                for source, target in files.items():
                    path = folder / target
                    path.parent.mkdir(parents=True, exist_ok=True)
                    member = packed.extractfile(f"package/{source}")
                    assert member is not None, f"{source} is no file"
                    path.write_bytes(member.read())
    stamp.write_text(LITERT_VERSION)


def define_flags() -> None:
    """Defines the flags of this program."""
    programs.define_path("model", None, "The .tflite file that edge.export wrote.", required=True)
    programs.define_path("output_dir", None, "Folder for the page; it is made.", required=True)


def run(values: flags.FlagValues) -> None:
    """Builds the site that the flags describe."""
    build_site(values.model, values.output_dir)
    print(f"Wrote the page to {values.output_dir}. See it on http://localhost:8000 with\n"
          f"  python -m http.server --directory {values.output_dir}")  # fmt: skip


if __name__ == "__main__":
    programs.main(define_flags, run)
