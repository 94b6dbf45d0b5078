"""Every setting of a run, once: the dataclass, its flags, and the file that repeats a run."""

import dataclasses
from typing import Any

PUBLISHED_CLASSES = 200  # BAS's learning rates were tuned on CUB-200


def resize_side(input_size: int, resize_size: int = 0) -> int:
    """Side in pixels that pictures are resized to before a crop of `input_size`.

    0 is 8/7 of the input's side: 256 for 224, as the papers have it.
    """
    return resize_size or round(input_size * 8 / 7)


def choices(name: str) -> tuple:
    """The legal values of a setting that has a list of them, such as `extractor`."""
    return (*Config.__dataclass_fields__[name].metadata["choices"], *_REGISTERED.get(name, ()))


def register_choice(name: str, value: str) -> None:
    """Makes a further value of a setting legal; each counts once."""
    if value not in choices(name):
        _REGISTERED.setdefault(name, []).append(value)


_REGISTERED: dict[str, list[str]] = {}


def _setting(default: Any, help: str, *, choices: tuple = ()) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of one training run; each is a flag of the same name."""

    # Data
    dataset: str = _setting(
        "shapes",
        "Data set: drawn, of your own files, or a public one.",
        choices=("shapes", "image_folder", "csv", "coco", "voc_folder", "voc", "voc2007",
                 "caltech_birds2011", "imagenet2012", "oxford_iiit_pet"),
    )  # fmt: skip
    data_dir: str = _setting(
        "", "Folder of the data set; for public ones that of tensorflow_datasets. 'shapes': none."
    )
    download: bool = _setting(True, "Download a public data set that is not there.")
    split: str = _setting("train", "Split that is trained on, or a slice of it: 'train[:90%]'.")
    val_split: str = _setting(
        "val", "Split that is scored after training; empty: only the held-out part is."
    )
    holdout: float = _setting(
        0.1, "Share of the training pictures kept out of training, to choose the threshold on."
    )
    num_examples: int = _setting(
        0, "At most so many pictures to train on, and a third as many to score on; 0: all."
    )
    single_class: bool = _setting(False, "Leave out pictures with several classes.")
    on_bad_image: str = _setting(
        "skip",
        "Pictures that can't be read: 'skip' and name them, or 'fail' at the first.",
        choices=("skip", "fail"),
    )
    cache: str = _setting(
        "memory",
        "Where resized pictures are kept for the next epochs: in memory when they fit in 4 GiB, "
        "or in a file in output_dir that goes with the process.",
        choices=("none", "memory", "disk"),
    )

    # Network
    extractor: str = _setting(
        "mobilenet_v1", "Feature extractor.", choices=("mobilenet_v1", "inception_v3")
    )
    width: float = _setting(1.0, "Width multiplier of MobileNetV1, 0.25 to 1.0.")
    input_size: int = _setting(224, "Side of the network's input in pixels, a multiple of 32.")
    resize_size: int = _setting(
        0, "Side that pictures are resized to before they are cropped; 0: 8/7 of input_size."
    )
    output_stride: int = _setting(
        8,
        "Pixels per position of the localization map, 4, 8 or 16: 8 gives 28x28.",
        choices=(4, 8, 16),
    )
    dilation: bool = _setting(
        True, "Dilate the convolutions behind a removed stride; off: as BAS does."
    )
    extractor_weights: str = _setting(
        "imagenet", "'imagenet' (downloaded), 'none', or the path of a .weights.h5 file."
    )
    bn_momentum: float = _setting(0.9, "Share of the moving average that a batch keeps.")
    head_width: int = _setting(1024, "Channels of the classifier's two 3x3 convolutions.")
    final_relu: bool = _setting(False, "End the score map with a ReLU, as BAS does.")
    localizer: str = _setting(
        "per_class",
        "Channels of the localizer: one per class (published), or a single one for all.",
        choices=("per_class", "agnostic"),
    )

    # Losses
    recipe: str = _setting(
        "default",
        "Settings that go together: 'default' is stable on small data sets, 'bas' is the "
        "published one. A flag given by itself wins over the recipe.",
        choices=("default", "bas"),
    )
    cls_fg_weight: float = _setting(0.5, "g1: weight of the foreground classification loss.")
    ae_weight: float = _setting(0.1, "g2: weight of adversarial erasing of the score map.")
    ae_fg_weight: float = _setting(0.1, "g3: weight of adversarial erasing of the mask.")
    pseudo_weight: float = _setting(1.0, "g4: weight of the pseudo-label loss.")
    bas_weight: float = _setting(1.0, "g5: weight of background activation suppression.")
    ac_weight: float = _setting(1.5, "g6: weight of the area constraint.")
    ae_threshold: float = _setting(0.7, "t1: score-map positions from here on are erased.")
    ae_fg_threshold: float = _setting(0.9, "t2: mask positions from here on are erased.")
    pseudo_high: float = _setting(0.5, "t3: mask positions above are pseudo foreground.")
    pseudo_low: float = _setting(0.1, "t4: mask positions below are pseudo background.")
    absolute_thresholds: bool = _setting(
        False, "t2..t4 are values of the mask instead of shares of each picture's maximum."
    )
    localization_start: float = _setting(
        0.2, "Share of the steps before cls_fg, bas and ac set in."
    )
    erasing_start: float = _setting(0.2, "Share of the steps before ae and ae_fg set in.")
    pseudo_start: float = _setting(0.5, "Share of the steps before pseudo sets in.")
    warmup: float = _setting(
        0.1, "Share of the steps over which ae, ae_fg and pseudo grow to their weights."
    )
    erased_statistics: str = _setting(
        "moving",
        "Statistics that batch normalization uses in the erased pass of bas.",
        choices=("batch", "moving"),
    )

    # Optimizer
    epochs: int = _setting(30, "Passes over the training pictures.")
    batch_size: int = _setting(32, "Pictures per step, over all devices together.")
    learning_rate: float = _setting(1e-3, "Learning rate of the backbone's kernels.")
    lr_drops: str = _setting(
        "0.667,0.933", "Shares of the run after which the learning rate is divided by 10."
    )
    bias_multiplier: float = _setting(2.0, "Learning rate of biases and BN offsets, relative.")
    head_multiplier: float = _setting(10.0, "Learning rate of both heads, relative.")
    localizer_multiplier: float = _setting(
        0.0,
        "Learning rate of the localizer relative to the heads'; 0: classes / 200, at most 1 and "
        "at least 12.8 / channels of the features.",
    )
    momentum: float = _setting(0.9, "Nesterov momentum.")
    l2: float = _setting(5e-4, "L2 decay, added to the gradient of every weight.")
    clip_norm: float = _setting(
        5.0, "Norm that the gradients of a step are clipped to, all together; 0: they are not."
    )
    ema: float = _setting(
        0.0,
        "Share that a moving average of the weights keeps at each step, such as 0.999; the average "
        "is what is validated and saved. 0: there is none.",
    )
    gradient_accumulation: int = _setting(
        1, "Parts that each batch is worked on in, one after the other, to need less memory."
    )
    mixed_precision: str = _setting(
        "float32",
        "Precision of the layers.",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    seed: int = _setting(0, "Seed of weights, shuffling, augmentation and drawn pictures.")

    # Scoring
    map: str = _setting(
        "mean",
        "Score map that is scored and stored with the model: of the given class, the predicted "
        "class, the mean over all classes, the mean over the top k, or the classifier's CAM.",
        choices=("true", "predicted", "mean", "topk", "cam"),
    )
    top_k: int = _setting(5, "Classes that --map=topk averages over.")

    threshold_from: str = _setting(
        "maps",
        "What the stored score-map thresholds are chosen from, on held-out training pictures: "
        "their score maps and labels, or their boxes.",
        choices=("maps", "boxes"),
    )

    # Validation while training, on held-out training pictures
    validate_every: int = _setting(
        1, "Epochs between two looks at held-out pictures: losses, GT-known, pictures; 0: never."
    )
    validation_images: int = _setting(64, "At most so many held-out pictures are looked at.")
    best_by: str = _setting(
        "last",
        "Which model is kept: the last, or that of the best look at held-out pictures: by their "
        "'loss' (needs labels only) or by 'gt_known' (needs boxes).",
        choices=("last", "loss", "gt_known"),
    )
    patience: int = _setting(
        0, "Looks without a better model after which training stops; 0: it doesn't stop early."
    )

    # Machine
    strategy: str = _setting(
        "auto",
        "Devices: one; mirrored, all of this machine; multi_worker, several machines; tpu; "
        "central, variables in one place. auto: see BUILD.md.",
        choices=("auto", "one", "mirrored", "multi_worker", "tpu", "central"),
    )
    jit_compile: str = _setting(
        "auto", "Compile the step with XLA; auto: on one GPU.", choices=("auto", "on", "off")
    )
    steps_per_execution: int = _setting(
        1, "Steps that run without a look at the losses in between; more is faster on a GPU."
    )
    deterministic: bool = _setting(
        False, "Same seed, same weights to the last bit, also on a GPU; slower."
    )

    # Output
    output_dir: str = _setting("", "Folder of the run; it is made.")
    resume: bool = _setting(
        True, "Go on where the run in output_dir was interrupted; off: start anew."
    )
    checkpoint_every_minutes: float = _setting(5.0, "Minutes between two checkpoints; 0: none.")
    checkpoint_every_steps: int = _setting(
        0, "Steps between two checkpoints, besides those by time; 0: by time only."
    )
    keep_checkpoints: int = _setting(2, "Checkpoints that are kept, the newest ones.")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            legal = choices(field.name)
            value = getattr(self, field.name)
            if legal and value not in legal:
                legal = ", ".join(map(str, legal))
                raise ValueError(f"Unknown {field.name} '{value}'. Legal: {legal}.")
        for name in (
            *("epochs", "batch_size", "head_width", "top_k", "gradient_accumulation"),
            *("steps_per_execution", "keep_checkpoints", "validation_images"),
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Received: {getattr(self, name)}.")
        for name in (
            *("localization_start", "erasing_start", "pseudo_start", "warmup"),
            *("momentum", "bn_momentum"),
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1]. Received: {getattr(self, name)}.")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be above 0. Received: {self.learning_rate}.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1). Received: {self.ema}.")
        if self.gradient_accumulation > 1 and self.strategy == "central":
            raise ValueError("strategy 'central' can't accumulate gradients: use 'mirrored'.")
        if self.best_by != "last" and not self.validate_every:
            raise ValueError(
                f"best_by '{self.best_by}' needs looks at held-out pictures: set validate_every."
            )
        if self.patience and self.best_by == "last":
            raise ValueError(
                "patience needs a score to wait for: set best_by to 'loss' or 'gt_known'."
            )
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout must lie in [0, 1). Received: {self.holdout}.")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type in (int, float) and not value >= 0:
                raise ValueError(f"{field.name} must be at least 0. Received: {value}.")
        if self.resize_size and self.resize_size < self.input_size:
            raise ValueError(
                f"resize_size must be 0 or at least input_size. Received: {self.resize_size} "
                f"with input_size {self.input_size}."
            )
        if self.pseudo_low >= self.pseudo_high:
            raise ValueError(
                "pseudo_low must be smaller than pseudo_high. "
                f"Received: {self.pseudo_low} and {self.pseudo_high}."
            )
        _ = self.lr_drop_shares  # a list that can't be read is refused here, not hours later

    @property
    def lr_drop_shares(self) -> tuple[float, ...]:
        """`lr_drops` as numbers in (0, 1), ascending."""
        try:
            shares = tuple(sorted(float(x) for x in self.lr_drops.split(",") if x.strip()))
        except ValueError:
            shares = (-1.0,)
        if any(not 0 < share < 1 for share in shares):
            raise ValueError(
                "lr_drops must be shares of the run between 0 and 1, separated by commas, as "
                f"0.667,0.933. Received: '{self.lr_drops}'."
            )
        return shares

    @property
    def crop_from(self) -> int:
        """Side in pixels that pictures are resized to before they are cropped."""
        return resize_side(self.input_size, self.resize_size)


# Settings that a run may be resumed with another value of: none of them changes what is learned.
FREE = (
    *("output_dir", "resume", "data_dir", "cache", "val_split", "strategy", "jit_compile"),
    *("steps_per_execution", "checkpoint_every_minutes", "checkpoint_every_steps"),
    *("keep_checkpoints", "deterministic"),
)

# What each recipe changes of the defaults above. 'bas' is section 3 of docs/method.md as written.
RECIPES = {
    "default": {},
    "bas": dict(
        dilation=False,
        final_relu=True,
        localization_start=0.0,
        erasing_start=0.0,
        pseudo_start=0.0,
        erased_statistics="batch",
        pseudo_high=0.7,
        pseudo_low=0.2,
        localizer_multiplier=1.0,
        clip_norm=0.0,
    ),
}


def from_recipe(recipe="default", **settings) -> Config:
    """Makes a Config in code: a recipe, and the settings that differ from it."""
    if recipe not in RECIPES:
        raise ValueError(f"Unknown recipe '{recipe}'. Legal: {', '.join(RECIPES)}.")
    return Config(**{**RECIPES[recipe], **settings, "recipe": recipe})


# Kinds of map that programs take: `map_of` picks them.
MAPS = ("true", "predicted", "mean", "topk", "cam")
