"""Trains with Keras's own `fit`, scores masks after each epoch, and draws what was found.

    python examples/fit_from_code.py            # drawn objects, two minutes on two CPU cores
    python examples/fit_from_code.py --epochs=1 --pictures=64

Change the two lines with `open_dataset` to `("image_folder", "my/pictures")`, and
`extractor_weights` to "imagenet", and the same trains on your own.
"""

import argparse

import keras
from PIL import Image

import wsol_tf
from wsol_tf.report import pictures

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--pictures", type=int, default=600)
parser.add_argument("--output", default="found.png")
given = parser.parse_args()

train = wsol_tf.open_dataset("shapes", "", "train", num_examples=given.pictures, image_size=146)
test = wsol_tf.open_dataset("shapes", "", "test", num_examples=32, image_size=146)
config = wsol_tf.Config.recipe(
    "default", width=0.25, input_size=128, head_width=128, localizer="agnostic",
    extractor_weights="drawn", batch_size=16, epochs=given.epochs,
)  # fmt: skip
model = wsol_tf.build(config, train.classes)
model.summary()

batches = train.batches(config.batch_size, input_size=config.input_size)
model.fit(
    batches,
    epochs=config.epochs,
    callbacks=[wsol_tf.LocalizationScores(test), keras.callbacks.TerminateOnNaN()],
)

tiles = []
for position in range(8):
    image = test.read_image(position)
    found = model.localize(image, threshold="otsu")
    tiles.append(pictures.overlay(image, found.score_map, found.mask, found.box))
    print(f"{test.image_ids[position]}: {found.class_name}, box {found.box.astype(int).tolist()}")
Image.fromarray(pictures.contact_sheet({"Found": tiles}, title="Drawn objects")).save(given.output)
print(f"Wrote {given.output}.")
