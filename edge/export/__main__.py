"""Makes .tflite files of a trained localizer and checks them against it on real pictures.

    python -m edge.export --model=RUN/model.keras --output_dir=OUT --calibration_data=FOLDER

writes OUT/localizer_<format>.tflite (see `edge/__init__.py` for what is in them), labels.txt,
parity.json and parity.md. A file that differs too much from the Keras model is written as
localizer_<format>.failed.tflite, and the command fails with the figures.
"""

import os

from absl import flags

from edge.export import calibration, exported_map
from edge.export.exported_map import ExportedMap
from edge.export.formats import FORMATS
from wsol_tf import importing, programs


def define_flags() -> None:
    """Defines the flags of this program."""
    programs.define_path("model", None, "The .keras file that train wrote.", required=True)
    programs.define_path("output_dir", None, "Folder for the files; it is made.", required=True)
    flags.DEFINE_list(
        "formats",
        "float32,float16,dynamic,int8",
        f"Which files, of {', '.join(FORMATS)}; the last three are trained for minutes.",
    )
    programs.define_path(
        "calibration_data",
        None,
        "Folder of pictures as the app will see them; no labels are needed. In VOC layout its "
        "split 'train' is read. 'shapes' takes drawn objects, and the name of a public data set "
        "what tensorflow_datasets has of it.",
        required=True,
    )
    flags.DEFINE_integer(
        "num_calibration", 100, "Pictures to calibrate on.", lower_bound=calibration.MIN_PICTURES
    )
    programs.define_path(
        "parity_data",
        None,
        "As calibration_data, for the comparison with Keras; default: the same. In VOC layout "
        "--split is read, and boxes give GT-known Loc.",
    )
    flags.DEFINE_string("split", "val", "Split of parity_data.")
    flags.DEFINE_integer("num_parity", 400, "Pictures to compare on; 0: all.", lower_bound=0)
    flags.DEFINE_string(
        "map", "mean", f"Score map of the file: {', '.join(exported_map.KINDS)} or class:NAME."
    )
    flags.DEFINE_integer(
        "output_size",
        0,
        "Side in pixels of the map, resized; 0: the network's own, or four times that where the "
        "model's maps are moved back to what they show.",
    )
    flags.DEFINE_enum("view", "crop", ["crop", "whole"], "View that is compared, as in evaluate.")
    flags.DEFINE_float(
        "max_drop",
        0.01,
        "GT-known Loc that a file may lose; more fails where it can't be chance (McNemar's exact "
        "test, one-sided, 5 %).",
        lower_bound=0,
    )
    flags.DEFINE_float("min_mask_iou", 0.95, "Mean IoU of a file's masks with Keras's.")
    flags.DEFINE_integer(
        "qat_steps", 100, "Batches of 8 pictures that int8_qat and the others are trained on.",
        lower_bound=1,
    )  # fmt: skip
    flags.DEFINE_float("sparsity", 0.5, "Share of zeros in the kernels of int8_pruned.", 0, 0.95)
    flags.DEFINE_integer("clusters", 32, "Distinct values in each kernel of int8_clustered.", 2)
    flags.DEFINE_integer("seed", 0, "Seed of the choice of pictures and of further training.")


def run(values: flags.FlagValues) -> None:
    """Exports as the flags say.

    Raises:
        ValueError: bad settings or data, or a file that differs too much.
    """
    importing.import_keras()
    from edge.export import convert, graphs, metadata, steps, verdict
    from wsol_tf.model.build import load_model
    from wsol_tf.report.run_page import add_files_to_card

    map_ = ExportedMap.parse(values.map)
    model = graphs.in_float32(load_model(values.model, to_train=False))
    map_.check(model.classes, model.localizer.output.shape[-1], model.presence_threshold)
    steps.check_formats(values.formats, model, map_)
    graph = graphs.export_graph(model, map_, output_size=values.output_size)
    source, _ = calibration.open_source(
        values.calibration_data, split="train", image_size=model.resize_size
    )
    pictures = calibration.read_pictures(
        source, model.input_size, values.num_calibration, seed=values.seed
    )
    parity_data = values.parity_data or values.calibration_data
    source, labelled = calibration.open_source(
        parity_data, split=values.split, image_size=model.resize_size, classes=model.classes
    )
    programs.make_output_dir(values.output_dir)
    made = steps.make_files(
        model, map_, graph, pictures, values.formats, log=programs.say,
        steps=values.qat_steps, sparsity=values.sparsity, clusters=values.clusters,
        seed=values.seed,
    )  # fmt: skip
    figures = steps.compare_files(
        model, map_, graph, made, source, labelled=labelled, view=values.view,
        num_pictures=values.num_parity, seed=values.seed,
    )  # fmt: skip
    report = {
        "model": values.model,
        "map": str(map_),
        "threshold": metadata.threshold_of(model, map_),
        "scored_on": source.name,
        "view": values.view,
        "files": figures,
        "failed": verdict.failures(
            figures, max_drop=values.max_drop, min_mask_iou=values.min_mask_iou
        ),
        "gpu_fallbacks": {name: convert.gpu_fallbacks(data) for name, data in made.items()},
        "doubts": verdict.doubts(figures, max_drop=values.max_drop),
    }
    steps.write_files(values.output_dir, model.classes, made, report)
    good = {f"localizer_{name}.tflite": figures[name] for name in made
            if name not in report["failed"]}  # fmt: skip
    add_files_to_card(os.path.join(os.path.dirname(values.model), "model_card.md"), good)
    print(verdict.to_markdown(report))
    steps.refuse_failed(report, values.output_dir)
    print(f"Wrote {', '.join(f'localizer_{name}.tflite' for name in made)} to {values.output_dir}")


if __name__ == "__main__":
    programs.main(define_flags, run)
