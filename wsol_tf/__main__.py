"""All programs under one name: `wsol-tf predict ...` is `python -m wsol_tf.predict ...`.

wsol-tf NAME [--name=value ...]     wsol-tf NAME --help
"""

import importlib.util
import runpy
import sys

# Name -> (module, what it does). Each is imported when it is called, and not before.
PROGRAMS = {
    "train": ("wsol_tf.train", "train a model, choose its threshold and score it"),
    "evaluate": ("wsol_tf.evaluate", "score a model, or score maps made elsewhere"),
    "compare": ("wsol_tf.compare", "say which of several scorings is really better"),
    "predict": ("wsol_tf.predict", "show where the object is in pictures"),
    "annotate": ("wsol_tf.annotate", "write boxes and polygons for people to correct"),
    "export": ("edge.export", "make TFLite files of a model and check them"),
    "study": ("wsol_tf.study", "compare settings, or search for them"),
    "import_bas": ("wsol_tf.import_bas", "make a model of a checkpoint of BAS (PyTorch)"),
    "datasets": ("wsol_tf.datasets", "show what is in a data set"),
    "demo": ("wsol_tf.demo", "train, score and predict on drawn objects"),
}


def programs() -> dict[str, tuple[str, str]]:
    """Returns the part of PROGRAMS that this version has."""
    return {
        name: (module, text)
        for name, (module, text) in PROGRAMS.items()
        if importlib.util.find_spec(module)
    }


def main() -> None:
    """Runs the program that the first argument names, as `python -m` would."""
    found, asked = programs(), sys.argv[1:2]
    if not asked or asked[0] in ("-h", "--help", "--helpfull", "help"):
        width = max(map(len, found))
        print("Usage: wsol-tf NAME [--name=value ...]\n")
        for name, (_, text) in found.items():
            print(f"  {name:{width}}  {text}")
        print("\nwsol-tf NAME --help lists the settings of one of them.")
        sys.exit(0 if asked else 2)
    if asked[0] not in found:
        sys.exit(f"Error: no program '{asked[0]}'. There are: {', '.join(found)}.")
    del sys.argv[1]
    runpy.run_module(found[asked[0]][0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
