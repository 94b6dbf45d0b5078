"""Every setting of a run, once: its value, what it means, and which values are legal."""

import dataclasses
import math
import numbers
import os
from collections.abc import Mapping
from typing import Any

from wsol_tf import files

# Networks of keras.applications that can be feature extractors, by family: docs/backbones.md.
EXTRACTORS = {
    "MobileNet": ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    "EfficientNet": ("efficientnet_b0", "efficientnet_v2_b0"),
    "ResNet": ("resnet50", "resnet101", "resnet50_v2"),
    "VGG": ("vgg16", "vgg19"),
    "DenseNet": ("densenet121",),
    "Inception": ("inception_v3", "xception"),
    "NASNet": ("nasnet_mobile",),
    "ConvNeXt": ("convnext_tiny",),
}
PUBLISHED_CLASSES = 200  # BAS's learning rates were tuned on CUB-200


def resize_side(input_size: int, resize_size: int = 0) -> int:
    """Side in pixels that pictures are resized to before a crop of `input_size`.

    0 is 8/7 of the input's side: 256 for 224, as the papers have it.
    """
    return resize_size or round(input_size * 8 / 7)


def choices(name: str) -> tuple:
    """The legal values of a setting that has a list of them, such as `extractor`.

    Args:
        name: a setting, a field of Config.

    Returns:
        Its values in the order in which they are shown, those of `register_choice` last; empty
        where the setting has no list.
    """
    return (*Config.__dataclass_fields__[name].metadata["choices"], *_REGISTERED.get(name, ()))


def legal(name: str) -> str:
    """The legal values of a setting as a sentence shows them; extractors by family."""
    values = choices(name)
    if name != "extractor":
        return ", ".join(map(str, values))
    families = [*EXTRACTORS.values(), tuple(_REGISTERED.get(name, ()))]
    return "; ".join(", ".join(family) for family in families if family)


def register_choice(name: str, value: str) -> None:
    """Makes a further value of a setting legal, such as a backbone of the user's own.

    Args:
        name: a setting that has a list of legal values.
        value: the new one; a value that is legal already stays so.
    """
    if value not in choices(name):
        _REGISTERED.setdefault(name, []).append(value)


_REGISTERED: dict[str, list[str]] = {}


def check(settings: Mapping[str, Any]) -> None:
    """Refuses values that a run can't work with.

    Args:
        settings: some of the settings of Config.

    Raises:
        ValueError: a value is not legal, or two of them can't go together.
    """
    for name, value in settings.items():
        field = Config.__dataclass_fields__[name]
        listed = choices(name)
        if listed and value not in listed:
            raise ValueError(f"Unknown `{name}` '{value}'. Legal: {legal(name)}.")
        kind, what = _KINDS[field.type]
        if not isinstance(value, kind) or (isinstance(value, bool) and field.type is not bool):
            raise ValueError(f"`{name}` must be {what}. Received: {value!r}.")
        if not listed and field.type in (int, float):
            _check_range(name, value, field.metadata["within"])
    low, high = settings.get("pseudo_low"), settings.get("pseudo_high")
    if low is not None and high is not None and low >= high:
        raise ValueError(
            f"`pseudo_low` must be smaller than `pseudo_high`. Received: {low} and {high}."
        )


_KINDS: dict[Any, tuple[type, str]] = {
    bool: (bool, "True or False"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: (str, "text"),
}


def _check_range(name: str, value: Any, within: str) -> None:
    left, right = within[0], within[-1]
    low, high = within[1:-1].split(", ")
    above = value > float(low) if left == "(" else value >= float(low)
    below = value < float(high) if right == ")" else value <= float(high)
    if above and below:
        return
    sentence = f"lie in {within}"
    if float(high) > 1:  # no share: only one of the two bounds is of interest
        sentence = f"be above {low}" if left == "(" else f"be at least {low}"
        sentence = sentence if not above or high == "inf" else f"be at most {high}"
    finite = "" if math.isfinite(value) else " It must be a finite number."
    raise ValueError(f"`{name}` must {sentence}. Received: {value}.{finite}")


def _setting(
    default: Any,
    help: str,
    *,
    choices: tuple = (),
    within: str = "[0, inf)",
    path: bool = False,
) -> Any:
    """A setting; `within` is the interval of a number's legal values, "[0, 1)" without 1."""
    metadata = {"help": help, "choices": choices, "within": within, "path": path}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of one training run; each is a flag of the same name."""

    # Data
    dataset: str = _setting(
        "shapes",
        "Data set: drawn, of your own files, or a public one.",
        choices=("shapes", "image_folder", "csv", "coco", "voc_folder", "wsolevaluation", "voc",
                 "voc2007", "caltech_birds2011", "imagenet2012", "oxford_iiit_pet"),
    )  # fmt: skip
    data_dir: str = _setting(
        "",
        "Folder of the data set; for public ones that of tensorflow_datasets. 'shapes': none.",
        path=True,
    )
    image_dir: str = _setting(
        "",
        "Folder of the pictures and masks that the lists of 'wsolevaluation' name.",
        path=True,
    )
    download: bool = _setting(True, "Download a public data set that is not there.")
    split: str = _setting(
        "train",
        "Split that is trained on, a slice or a sum: 'train[:90%]', 'train+val[fold!=2/5]'.",
    )
    val_split: str = _setting(
        "val", "Split that is scored after training; empty: only the held-out part is."
    )
    holdout: float = _setting(
        0.1,
        "Share of the training pictures kept out of training: to watch it, and to know boxes of.",
        within="[0, 1)",
    )
    num_examples: int = _setting(
        0, "At most this many pictures to train on, and a third as many to score on; 0: all."
    )
    data_seed: int = _setting(
        -1,
        "Seed of drawn pictures and of the choice that num_examples makes; -1: that of seed.",
        within="[-1, inf]",
    )
    single_class: bool = _setting(False, "Leave out pictures with several classes.")
    background_class: str = _setting(
        "",
        "Class of pictures without any object, such as 'empty' or 'ok': their mask is known to be "
        "empty, and predict finds nothing in such pictures. Empty: there is none.",
    )
    on_bad_image: str = _setting(
        "skip",
        "Pictures that can't be read: 'skip' and name them, or 'fail' at the first.",
        choices=("skip", "fail"),
    )
    cache: str = _setting(
        "memory",
        "Where resized pictures are kept for the next epochs: in memory when they fit in 4 GiB, "
        "or in a file in output_dir that is removed with the process.",
        choices=("none", "memory", "disk"),
    )

    # Network
    extractor: str = _setting(
        "mobilenet_v1",
        "Feature extractor: docs/backbones.md helps to choose.",
        choices=sum(EXTRACTORS.values(), ()),
    )
    width: float = _setting(
        1.0, "Width multiplier of a MobileNet, in (0, 2]; the others have 1.0 alone."
    )
    input_size: int = _setting(
        224, "Side of the network's input in pixels, a multiple of 32.", within="[1, 1000000]"
    )
    resize_size: int = _setting(
        0,
        "Side that pictures are resized to before they are cropped; 0: 8/7 of input_size.",
        within="[0, 1000000]",
    )
    min_crop: float = _setting(
        0.6,
        "Least side of a random crop, relative to input_size: sides are drawn between it and the "
        "whole picture. 1: all crops are of input_size, as published.",
        within="(0, 1]",
    )
    output_stride: int = _setting(
        8,
        "Pixels per position of the localization map, 4, 8, 16 or 32: 8 gives 28x28.",
        choices=(4, 8, 16, 32),
    )
    levels: str = _setting(
        "",
        "Features of several strides for the localizer, such as 8,16: the coarser ones are "
        "enlarged and joined to those of output_stride, and no stride is removed. Empty: those "
        "of the cut alone.",
    )
    dilation: bool = _setting(
        True, "Dilate the convolutions behind a removed stride; off: as BAS does."
    )
    extractor_weights: str = _setting(
        "imagenet",
        "'imagenet' (downloaded), 'drawn' (of drawn pictures, for the demo), 'none', or the path "
        "of a .weights.h5 file.",
        path=True,
    )
    freeze: float = _setting(
        0.0,
        "Share of the backbone's layers, counted from the picture, that keep their weights; for "
        "few pictures. 1: only the heads are trained.",
        within="[0, 1]",
    )
    bn_momentum: float = _setting(
        0.9, "Share of the moving average that a batch keeps.", within="[0, 1]"
    )
    head_width: int = _setting(
        1024, "Channels of the classifier's two 3x3 convolutions.", within="[1, 1000000]"
    )
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
    ae_weight: float = _setting(0.5, "g2: weight of adversarial erasing of the score map.")
    ae_fg_weight: float = _setting(0.1, "g3: weight of adversarial erasing of the mask.")
    pseudo_weight: float = _setting(3.0, "g4: weight of the pseudo-label loss.")
    bas_weight: float = _setting(1.0, "g5: weight of background activation suppression.")
    ac_weight: float = _setting(1.5, "g6: weight of the area constraint.")
    background_weight: float = _setting(
        0.5, "Weight of the empty mask of pictures without any object; see background_class."
    )
    ae_threshold: float = _setting(0.4, "t1: score-map positions from here on are erased.")
    ae_fg_threshold: float = _setting(0.9, "t2: mask positions from here on are erased.")
    pseudo_high: float = _setting(0.5, "t3: mask positions above are pseudo foreground.")
    pseudo_low: float = _setting(0.3, "t4: mask positions below are pseudo background.")
    pseudo_target: str = _setting(
        "guided",
        "Where pseudo labels come from: 'guided', the mask refined by the picture, whose values "
        "t3 and t4 are compared with; or the 'mask' itself: take t4 = 0.1 and weight 1 with it.",
        choices=("mask", "guided"),
    )
    pseudo_balance: bool = _setting(
        True,
        "Foreground pseudo labels of a picture weigh no more, all together, than its background "
        "ones: they push its mask up no more than down.",
    )
    absolute_thresholds: bool = _setting(
        False, "t2..t4 are values of the mask instead of shares of each picture's maximum."
    )
    localization_start: float = _setting(
        0.2,
        "Share of the steps before cls_fg, bas and ac set in.",
        within="[0, 1]",
    )
    erasing_start: float = _setting(
        0.2, "Share of the steps before ae and ae_fg set in.", within="[0, 1]"
    )
    pseudo_start: float = _setting(
        0.5, "Share of the steps before pseudo sets in.", within="[0, 1]"
    )
    warmup: float = _setting(
        0.1,
        "Share of the steps over which ae, ae_fg and pseudo grow to their weights.",
        within="[0, 1]",
    )
    erased_statistics: str = _setting(
        "moving",
        "Statistics that batch normalization uses in the erased pass of bas.",
        choices=("batch", "moving"),
    )
    activation_form: str = _setting(
        "mean_of_relu",
        "How bas sums the class's score map up: the mean of its positive part, or the positive "
        "part of its mean, which is the logit. They are the same with final_relu.",
        choices=("mean_of_relu", "relu_of_mean"),
    )
    erased_share: float = _setting(
        1.0,
        "Share of each training batch that takes the erased pass of bas; below 1 a step is faster.",
        within="(0, 1]",
    )

    # Optimizer
    epochs: int = _setting(30, "Passes over the training pictures.", within="[1, 1000000]")
    min_steps: int = _setting(
        0, "Least steps of a training: where pictures are few, an epoch is several passes."
    )
    batch_size: int = _setting(
        32, "Pictures per step, over all devices together.", within="[1, 1000000]"
    )
    learning_rate: float = _setting(
        1e-3, "Learning rate of the backbone's kernels.", within="(0, inf)"
    )
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
    momentum: float = _setting(0.9, "Nesterov momentum.", within="[0, 1]")
    l2: float = _setting(5e-4, "L2 decay, added to the gradient of every weight.")
    clip_norm: float = _setting(
        5.0, "Norm that the gradients of a step are clipped to, all together; 0: no clipping."
    )
    ema: float = _setting(
        0.0,
        "Share that a moving average of the weights keeps at each step, such as 0.999; the average "
        "is validated and saved. 0: no average.",
        within="[0, 1)",
    )
    gradient_accumulation: int = _setting(
        1,
        "Parts that each batch is split into, processed one after the other to save memory.",
        within="[1, 1000000]",
    )
    mixed_precision: str = _setting(
        "float32",
        "Precision of the layers; auto: mixed_bfloat16 where this machine is faster with it.",
        choices=("float32", "auto", "mixed_bfloat16", "mixed_float16"),
    )
    seed: int = _setting(
        0, "Seed of weights, shuffling, augmentation and drawn pictures.", within="[0, 4294967295]"
    )

    # Scoring
    map: str = _setting(
        "mean",
        "Score map that is scored and stored with the model: of the given class, the predicted "
        "class, the mean over all classes, the mean over the top k, or the classifier's CAM.",
        choices=("true", "predicted", "mean", "topk", "cam"),
    )
    refine: str = _setting(
        "none",
        "Refine the localizer's score map by the picture: 'guided' (a guided filter) ends it where "
        "the picture has an edge; kept with the model.",
        choices=("none", "guided"),
    )
    separate: bool = _setting(
        False,
        "Cut objects that touch apart where their mask comes apart at a higher threshold; the "
        "first box is then of the object with the most of its class; kept with the model.",
    )
    align: bool = _setting(
        True,
        "Measure at the end by how much the localizer's maps lie beside the objects, from the "
        "training pictures and their mirror images, and move them back; kept with the model.",
    )
    mirror: bool = _setting(
        False,
        "Average the maps and the class of each picture with those of its mirror image: twice the "
        "network's time; kept with the model.",
    )
    top_k: int = _setting(5, "Classes that the map 'topk' averages over.", within="[1, 1000000]")

    threshold_from: str = _setting(
        "maps",
        "What the stored score-map thresholds are chosen from: maps and labels of training "
        "pictures, or boxes of the held-out ones.",
        choices=("maps", "boxes"),
    )

    # Validation while training, on held-out training pictures
    validate_every: int = _setting(
        1,
        "Epochs between two validations on held-out pictures: losses, GT-known, drawn maps; "
        "0: never.",
    )
    validation_images: int = _setting(
        64, "At most this many held-out pictures are validated on.", within="[1, inf)"
    )
    best_by: str = _setting(
        "last",
        "Which model is kept: the last, or the best one on held-out pictures: by their 'loss' "
        "(needs labels only) or by 'gt_known' (needs boxes).",
        choices=("last", "loss", "gt_known"),
    )
    patience: int = _setting(
        0, "Validations without a better model after which training stops; 0: no early stopping."
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
        1,
        "Steps that run between two reports of the losses; more is faster on a GPU.",
        within="[1, 1000000]",
    )
    deterministic: bool = _setting(
        False, "Same seed, same weights to the last bit, also on a GPU; slower."
    )

    # Output
    output_dir: str = _setting("", "Folder of the run; it is created.", path=True)
    resume: bool = _setting(True, "Continue the interrupted run in output_dir; off: start anew.")
    checkpoint_every_minutes: float = _setting(5.0, "Minutes between two checkpoints; 0: none.")
    checkpoint_every_steps: int = _setting(
        0, "Steps between two checkpoints, besides those by time; 0: by time only."
    )
    keep_checkpoints: int = _setting(
        2, "Checkpoints that are kept, the newest ones.", within="[1, inf)"
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata["path"] and isinstance(value, (str, os.PathLike)):
                object.__setattr__(self, field.name, files.expanded(value))
        check({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        if self.gradient_accumulation > 1 and self.strategy == "central":
            raise ValueError(
                "`strategy` 'central' can't accumulate gradients: use 'mirrored', or "
                f"`gradient_accumulation=1`. Received: {self.gradient_accumulation}."
            )
        if self.best_by != "last" and not self.validate_every:
            raise ValueError(
                f"`best_by` '{self.best_by}' needs scores of held-out pictures: set "
                "`validate_every`. Received: 0."
            )
        if self.patience and self.best_by == "last":
            raise ValueError(
                "`patience` needs a score to wait for: set `best_by` to 'loss' or 'gt_known'."
            )
        if self.resize_size and self.resize_size < self.input_size:
            raise ValueError(
                f"`resize_size` must be 0 or at least `input_size`. Received: {self.resize_size} "
                f"with input_size {self.input_size}."
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
                "`lr_drops` must be shares of the run between 0 and 1, separated by commas, as "
                f"0.667,0.933. Received: '{self.lr_drops}'."
            )
        return shares

    @property
    def crop_from(self) -> int:
        """Side in pixels that pictures are resized to before they are cropped."""
        return resize_side(self.input_size, self.resize_size)


# Settings that may differ when a run is resumed: none of them changes what is learned.
CHANGEABLE_ON_RESUME = (
    *("output_dir", "resume", "data_dir", "image_dir", "cache", "val_split", "strategy"),
    *("jit_compile", "steps_per_execution", "checkpoint_every_minutes", "checkpoint_every_steps"),
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
        min_crop=1.0,
        ae_weight=0.1,
        ae_threshold=0.7,
        pseudo_target="mask",
        pseudo_balance=False,
        pseudo_weight=1.0,
        pseudo_high=0.7,
        pseudo_low=0.2,
        localizer_multiplier=1.0,
        clip_norm=0.0,
    ),
}


def _of_recipe(cls: type[Config], name: str = "default", **settings: Any) -> Config:
    """Makes a Config: a recipe, and the settings that differ from it.

    Args:
        cls: Config.
        name: "default", which is stable on small data sets, or "bas", the published settings.
        **settings: settings by name; they win over the recipe.

    Returns:
        The Config, with `recipe` set to the name.

    Raises:
        ValueError: an unknown recipe or setting, or a value that is not legal.
    """
    if name not in RECIPES:
        raise ValueError(f"Unknown recipe '{name}'. Legal: {', '.join(RECIPES)}.")
    legal = [field.name for field in dataclasses.fields(cls) if field.name != "recipe"]
    for setting in settings:
        if setting not in legal:
            raise ValueError(f"Unknown setting '{setting}'. Legal: {', '.join(legal)}.")
    return cls(**{**RECIPES[name], **settings, "recipe": name})


# The class makes a Config, and an object says which recipe it came from: one name for both. Set
# here, because inside the class the function would be taken for the default of the setting.
Config.recipe = classmethod(_of_recipe)  # type: ignore[assignment]


# Kinds of map that programs take: `map_of` picks them.
MAPS = ("true", "predicted", "mean", "topk", "cam")
# What says which components of a mask are objects.
LIMITS = ("min_area", "min_picture_area", "max_objects")
