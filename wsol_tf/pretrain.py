"""Makes the features that `extractor_weights=drawn` stands for: MobileNetV1 of width 0.25.

    python -m wsol_tf.pretrain --output=drawn.weights.h5

draws swatches, pictures with one label each, and trains a backbone on them and on collages of them
(docs/method.md). A quarter of an hour of CPU time; the same seed gives the same weights, to the
bit, on one machine with the same versions.
"""

from absl import flags

from wsol_tf import importing, programs


def define_flags() -> None:
    """Defines the flags of this program."""
    programs.define_path("output", None, "The .weights.h5 file to write.", required=True)
    flags.DEFINE_integer("seed", 0, "Seed of pictures, weights and crops.", lower_bound=0)
    flags.DEFINE_float(
        "share", 1.0, "Share of the pictures and steps; a small one for a try.",
        lower_bound=0, upper_bound=1,
    )  # fmt: skip
    flags.DEFINE_integer("processes", 2, "Processes that draw.", lower_bound=0)


def run(values: flags.FlagValues) -> None:
    """Draws, trains and writes the file."""
    importing.import_keras()
    from wsol_tf.training.drawn_features import pretrain

    pretrain(
        values.output, seed=values.seed, share=values.share, processes=values.processes,
        log=programs.say,
    )  # fmt: skip


if __name__ == "__main__":
    programs.main(define_flags, run)
