"""Makes a model of a checkpoint of BAS (arXiv 2112.00580), to go on with what was trained there.

    python -m wsol_tf.import_bas FILE.pth.tar --classes=names.txt --output=model.keras

reads what the authors' code (github.com/wpy1999/BAS) saved of its MobileNetV1, VGG16, ResNet50 or
InceptionV3, for CUB-200-2011 or ILSVRC, and writes a model that gives the same outputs; evaluate,
predict, annotate and export take it. It needs PyTorch for reading: pip install 'wsol_tf[bas]'.
"""

import os

from absl import flags

from wsol_tf import files, importing, programs


def define_flags() -> None:
    """Defines the flags of this program."""
    programs.define_path("output", None, "The .keras file to write.", required=True)
    programs.define_path(
        "classes",
        "",
        "Text file with the name of a class on each line, in the order of the ids: in BAS, the "
        "sorted names of the folders. Default: numbers.",
    )


def run(values: flags.FlagValues, *paths: str) -> None:
    """Reads the checkpoint and writes the model."""
    if len(paths) != 1:
        raise ValueError(
            "Name one checkpoint of BAS, as in: import_bas FILE.pth.tar --output=model.keras. "
            f"Received: {files.counted(len(paths), 'file')}."
        )
    if not values.output.endswith(".keras"):
        raise ValueError(f"`output` must end in .keras. Received: '{values.output}'.")
    folder = os.path.dirname(values.output)
    if folder and not os.path.isdir(folder):
        raise ValueError(f"`output`: there is no folder '{folder}'. Make it, or name another.")
    names = _names(values.classes) if values.classes else None
    from wsol_tf.model import torch_file

    tensors = torch_file.read_tensors(paths[0])
    importing.import_keras()
    from wsol_tf.model import bas

    try:
        model = bas.build_from(tensors, names)
    except ValueError as error:
        raise ValueError(f"{files.printable(paths[0])}: {error}") from None
    with files.replacing(values.output) as unfinished:
        model.save(unfinished)
    programs.say(
        f"Wrote {values.output}: {model.loaded_weights}, {len(model.classes)} classes, "
        f"{os.path.getsize(values.output) / 1e6:.0f} MB."
    )
    if model.thresholds:
        programs.say(
            f"Map '{model.map}' with the threshold {model.thresholds[model.map]}, as BAS's own "
            "inference has them."
        )
    else:
        programs.say(
            "BAS publishes no threshold for so many classes: give evaluate and predict one, or "
            "--threshold=otsu, which exported files take."
        )


def _names(path):
    lines = files.read_text(path).splitlines()
    return [line.strip() for line in lines if line.strip()]


if __name__ == "__main__":
    programs.main(define_flags, run)
