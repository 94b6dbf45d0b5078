"""What the names in metrics.json mean: a sentence or two each, for that file and for the page."""

from typing import Any

DISPLAY_NAMES = {  # as people write them
    "gt_known_loc": "GT-known Loc",
    "top1_loc": "Top-1 Loc",
    "top5_loc": "Top-5 Loc",
    "top1_cls": "Top-1 Cls",
    "top5_cls": "Top-5 Cls",
    "miou_box": "box mIoU",
    "miou_mask": "mask mIoU",
    "gt_known_loc_oracle": "oracle GT-known Loc",
    "gt_known_loc_otsu": "GT-known Loc at Otsu's thresholds",
    "max_box_acc": "MaxBoxAcc",
    "max_box_acc_v2": "MaxBoxAccV2",
    "pxap": "PxAP",
    "piou": "pIoU",
    "corloc": "CorLoc",
    "ap": "AP",
    "ap50": "AP50",
    "right": "right",
    "wrong_class": "wrong class",
    "part_only": "part only",
    "too_big": "too big",
    "several_objects": "more than one object",
    "missed": "missed",
}

MAP_NAMES = {
    "cam": "CAM of the classifier",
    "grad_cam": "Grad-CAM of the classifier",
    "mean": "localizer, mean of maps",
    "plain": "the same, not refined",
    "whole": "the same, not separated",
    "true": "localizer, true class",
    "predicted": "localizer, predicted class",
    "topk": "localizer, top classes",
    "center": "blob in the centre",
    "stored": "stored score maps",
}

DEFINITIONS = {
    # figures at the threshold
    "gt_known_loc": "Share of pairs whose box has IoU 0.5 or more with a true box of the class "
    "(localization with the class given).",
    "top1_loc": "Share of pairs that are right in gt_known_loc and whose class has the highest "
    "score.",
    "top5_loc": "Share of pairs that are right in gt_known_loc and whose class is among the five "
    "highest scores.",
    "top1_cls": "Share of pairs whose class has the highest score; boxes play no part.",
    "top5_cls": "Share of pairs whose class is among the five highest scores.",
    "miou_box": "Mean over pairs of the IoU between the predicted box and the true box that fits "
    "it best.",
    "miou_mask": "Mean over pairs of the IoU between the true mask and all positions above the "
    "threshold.",
    "threshold": "Score-map threshold of every figure that is not called oracle or otsu: one for "
    "all pictures, or 'otsu' where each map has its own.",
    "threshold_from": "Where the threshold comes from.",
    "gt_known_loc_otsu": "gt_known_loc with Otsu's threshold of each map instead of a fixed one; "
    "it needs no boxes.",
    "num_empty": "Pictures of the class that stands for no object (background_class): they have no "
    "box and are left out of every figure of localization.",
    "false_area": "Mean over these pictures of the share that the mask takes; 0 where their class "
    "is predicted, for then nothing is found.",
    "found_nothing": "Share of these pictures in which nothing is found.",
    # figures whose threshold or box is the best on these pictures
    "gt_known_loc_oracle": "Highest gt_known_loc that any single threshold reaches on these very "
    "pictures: an upper bound, not a result.",
    "oracle_threshold": "Threshold that reaches gt_known_loc_oracle (the middle one if several "
    "do).",
    "miou_box_oracle": "Highest miou_box that any single threshold reaches on these very pictures.",
    "miou_box_oracle_threshold": "Threshold that reaches miou_box_oracle.",
    "miou_mask_oracle": "Highest miou_mask that any single threshold reaches on these very "
    "pictures.",
    "miou_mask_oracle_threshold": "Threshold that reaches miou_mask_oracle.",
    "max_box_acc": "MaxBoxAcc of Choe et al. (CVPR 2020): accuracy at IoU 0.5 of the largest "
    "contour's box, at the threshold that is best on these very pictures.",
    "max_box_acc_v2": "MaxBoxAccV2 of Choe et al. (arXiv 2007.04178): of the boxes of all contours "
    "the best one counts; mean over IoU 0.3, 0.5 and 0.7, each at its best threshold on these very "
    "pictures.",
    "pxap": "PxAP of Choe et al. (CVPR 2020): area under the curve of pixel precision against "
    "pixel recall over all thresholds, measured on masks.",
    "piou": "Highest IoU that any single threshold reaches with the true masks, over the pixels of "
    "all pictures taken together.",
    "value": "The figure itself.",
    "percent": "The same as the number that wsolevaluation prints, to the last bit.",
    "iou_levels": "The same at each IoU level, with the threshold that is best for that level.",
    "accuracy": "Share of pairs whose box has at least this IoU with a true box.",
    # several objects in a picture
    "objects": "Each component of a mask as an object, in the map of a class that is given. None "
    "without boxes.",
    "detection": "The same for the classes that are found, wrong ones included, each in its own "
    "map where there is one for each class, cut as predict cuts it; all boxes in a picture without "
    "any object are false.",
    "corloc": "Mean over classes of the share of their pictures in which the box with the highest "
    "score has IoU 0.5 or more with an object of the class.",
    "ap": "Average precision as COCO computes it: mean over the IoUs 0.5, 0.55 to 0.95 and over "
    "the classes. A box's score is the mean of the map inside times the class's probability.",
    "ap50": "Average precision at IoU 0.5, mean over the classes.",
    "recall": "Share of the objects that a box of their own finds, with IoU 0.5 or more.",
    "recall_by_number": "Recall in the pictures with one object, two, three, four and more, of all "
    "classes together.",
    "num_objects": "Number of true boxes in the views.",
    "num_boxes": "Number of boxes that were found.",
    "min_area": "Components with fewer pixels than this share of the largest one's are no objects.",
    "min_picture_area": "Components with fewer pixels than this share of the view are no objects.",
    "max_objects": "Most objects of a class in a picture; 0: no limit.",
    "presence": "Probability from which on a class counts as found; the first one always does.",
    "segmentation": "Classes as pixels: each pixel has the class whose map is highest there, of "
    "those above the threshold. None without masks.",
    "given": "With the classes in the picture given.",
    "found": "With the classes that were found.",
    "miou": "Mean over the classes and the background of iou.",
    "iou": "IoU of the pixels of a class, of all pictures together.",
    # what the figures are compared with
    "baselines": "Boxes chosen without looking at a picture, scored on the same pairs.",
    "whole_view": "The whole view as the box.",
    "centered_box_oracle": "A centred box with the view's aspect ratio; its area is the one that "
    "is best on these very pictures.",
    "area_fraction": "Share of the view that the centred box covers.",
    "other_maps": "The main figures of the other score maps of the same network, each at its own "
    "threshold: true (the class's own channel), mean (over all channels), cam (the classifier's "
    "class activation map).",
    # how sure they are
    "intervals": "Intervals of 95 % for the figures, were other pictures of this kind scored: the "
    "pictures are drawn again and again (bootstrap). Other seeds of the training are not in it.",
    "above_baselines": "By how much gt_known_loc is above that of what needs no localizer.",
    "classifier_cam": "Class activation map of the same network, at its own threshold.",
    "difference": "Figure of the scored map less that of the baseline, on the same pictures.",
    "interval": "Interval of 95 % for the difference.",
    "gained": "Pictures that the scored map hits and the baseline misses.",
    "lost": "Pictures that the baseline hits and the scored map misses.",
    "p": "McNemar's exact test: how probable so large a difference is by chance.",
    "verdict": "Says better or worse where the interval leaves out 0 and p is below 0.05, else no "
    "difference shown.",
    # outcomes of the pairs
    "outcomes": "Number of pairs (of those that have boxes) with each outcome at the threshold. "
    "Each pair is counted once, under the first that holds: right, wrong_class, several_objects, "
    "part_only, too_big, missed. After the error analysis of TS-CAM (Gao et al., ICCV 2021).",
    "right": "IoU 0.5 or more with a true box, and the class has the highest score (where there "
    "are class scores).",
    "wrong_class": "IoU 0.5 or more with a true box, but another class has a higher score.",
    "part_only": "IoU below 0.5, and more than half of the box lies within the nearest true box.",
    "too_big": "IoU below 0.5, and the box covers 0.7 or more of the nearest true box.",
    "several_objects": "IoU below 0.5, and the box covers more than 0.3 of each of two or more "
    "true boxes.",
    "missed": "None of the others: the box lies elsewhere, the map is broken, or there is no true "
    "box in the view.",
    # what was scored
    "model": "File of the model, or where the score maps came from.",
    "scored_on": "Data set or split that was scored.",
    "map": "Score map that is scored: a class's own channel (true, predicted), the mean over all "
    "channels (mean) or over the classes with the highest scores (topk), the classifier's class "
    "activation map (cam) or Grad-CAM (grad_cam), a blob in the centre that ignores the picture "
    "(center), or maps made elsewhere (stored).",
    "view": "How much of a picture the network sees: crop (the central 7/8, as in the papers) or "
    "whole.",
    "ten_crop": "Whether the class comes from ten crops together, as in BAS, or from the view.",
    "single_class": "The main figures on the pictures that show a single class.",
    "num_images": "Number of pictures that were scored.",
    "num_pairs": "Number of pairs of a picture and a class in it: they are what is scored and "
    "counted.",
    "pairs_without_box": "Pictures with an object that lies outside the view; it counts as missed.",
    "constant_maps": "Pictures whose score map has one value everywhere; the box is the view.",
    "bad_maps": "Pictures without a score map, or with NaN or infinity in it; they count as "
    "missed.",
    "bad_scores": "Pictures without class scores, or with NaN or infinity in them; their class "
    "counts as wrong.",
    "duplicates": "Pictures that came twice; only the first time counts.",
    "score_maps": "What was found in the stored score maps.",
    "class_scores": "What was found in the stored class scores.",
    "path": "Where they are stored.",
    "missing": "Pictures for which nothing is stored.",
    "unreadable": "Pictures whose stored array can't be used, with the reason.",
    "outside_0_1": "Pictures whose stored score map has values outside 0..1.",
    "unused": "Stored names that belong to none of the scored pictures.",
    "skipped": "Pictures that could not be read, with the reason; they do not count.",
    "per_class": "Means over classes of the per-class figures: every class weighs the same.",
    "classes": "The figures of each class.",
    # curves
    "threshold_curves": "How gt_known_loc depends on the threshold: one value at each threshold.",
    "score_map_thresholds": "The thresholds of the curves.",
    "gt_known_loc_iou_30": "gt_known_loc at each threshold, where boxes are right from IoU 0.3 on.",
    "gt_known_loc_iou_50": "gt_known_loc at each threshold, where boxes are right from IoU 0.5 on.",
    "gt_known_loc_iou_70": "gt_known_loc at each threshold, where boxes are right from IoU 0.7 on.",
    # of a training
    "interrupted": "Whether the training was stopped by hand.",
    "epochs": "Number of epochs that were trained.",
    "best_epoch": "Epoch whose model was kept as the best on held-out pictures; null: the last.",
    "thresholds": "Score-map threshold chosen for each kind of map.",
    "thresholds_from": "What the thresholds were chosen from: score maps and labels, or boxes.",
    "presence_threshold": "Probability from which on a class counts as present in predict, chosen "
    "from the labels of held-out pictures.",
    "threshold_by_maps": "The threshold that score maps and labels give, whether or not it is the "
    "one that is stored.",
    "threshold_by_boxes": "The threshold that boxes give, whether or not it is the one that is "
    "stored.",
    "gt_known_loc_by_maps": "gt_known_loc at threshold_by_maps.",
    "gt_known_loc_by_boxes": "gt_known_loc at threshold_by_boxes.",
    "threshold_chosen_on_scored": "Whether the threshold was chosen on the very pictures that were "
    "scored: the figures are then optimistic.",
    "map_offset": "By how many positions, (down, right), the localizer's maps lay beside what they "
    "show, by the training pictures and their mirror images; they are moved back by it.",
    "num_training_images": "Number of pictures that were trained on.",
    "num_held_out_images": "Number of training pictures that were held out: not trained on.",
    "num_threshold_images": "Number of pictures that the threshold was chosen on: of the training "
    "pictures, held-out ones among them, where it comes from maps; else of the held-out ones.",
    "threshold_quartiles": "How far the thresholds spread that single pictures suggest by their "
    "maps: the first quartile, the median and the third.",
    "skipped_in_training": "Training pictures that could not be read, with the reason.",
    "warnings": "What the training warned of: the step, what it saw and the setting to change.",
    "minutes": "How long the training took, in minutes.",
}


def certainty_in_words(figures: dict[str, Any]) -> str:
    """Says how sure GT-known Loc is, and by how much it is above the baselines; '' without boxes.

    Args:
        figures: what metrics.json holds; that of a version before intervals says nothing.
    """
    interval = figures.get("intervals", {}).get("gt_known_loc")
    if interval is None:
        return ""
    low, high = interval
    said = []
    for name, row in figures["above_baselines"].items():
        of = MAP_NAMES["cam"] if name == "classifier_cam" else "the best centred box"
        ends = sorted(map(abs, row["interval"]))
        if row["verdict"] == "no difference shown":
            ends = row["interval"]
            said.append(
                f"no difference to {of} is shown ({row['difference']:+.3f}, {ends[0]:+.3f} to "
                f"{ends[1]:+.3f}, p = {row['p']:.2g})"
            )
            continue
        where = "above" if row["verdict"] == "better" else "below"
        said.append(f"{abs(row['difference']):.3f} ({ends[0]:.3f} to {ends[1]:.3f}) {where} {of}")
    start = f"GT-known Loc {figures['gt_known_loc']:.3f} (95 % interval {low:.3f} to {high:.3f})"
    return f"{start}: {', '.join(said)}." if said else f"{start}."


def definitions_of(figures: dict[str, Any]) -> dict[str, str]:
    """Picks the definitions of the names that occur in a dict of figures, at any depth.

    Args:
        figures: what metrics.json holds, or is about to hold.

    Returns:
        Dict of name -> definition, in the order of DEFINITIONS.
    """
    names = set()

    def collect(part):
        if isinstance(part, dict):
            for name, value in part.items():
                names.add(name)
                collect(value)

    collect(figures)
    return {name: text for name, text in DEFINITIONS.items() if name in names}
