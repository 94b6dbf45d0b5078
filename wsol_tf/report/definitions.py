"""What the names in metrics.json mean: one sentence each, in one place, for files and reports."""

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
    "true": "localizer, true class",
    "predicted": "localizer, predicted class",
    "topk": "localizer, top classes",
    "center": "centre, without looking",
    "stored": "the stored score maps",
}

DEFINITIONS = {
    # figures at the threshold
    "gt_known_loc": "Share of pairs whose box has IoU 0.5 or more with a true box of the class "
    "(correct localization with the class given).",
    "top1_loc": "Share of pairs that count in gt_known_loc and whose class has the highest score.",
    "top5_loc": "Share of pairs that count in gt_known_loc and whose class is among the five "
    "highest scores.",
    "top1_cls": "Share of pairs whose class has the highest score; boxes play no part.",
    "top5_cls": "Share of pairs whose class is among the five highest scores.",
    "miou_box": "Mean over pairs of the IoU between the predicted box and the best true box.",
    "miou_mask": "Mean over pairs of the IoU between all positions above the threshold and the "
    "true mask.",
    "threshold": "Score-map threshold of all figures that are not called oracle or otsu: one for "
    "all pictures, or 'otsu' for each map's own.",
    "threshold_from": "Where the threshold comes from.",
    "gt_known_loc_otsu": "gt_known_loc with Otsu's threshold of each map in place of a fixed one; "
    "it needs no boxes.",
    # figures whose threshold or box is the best on these pictures
    "gt_known_loc_oracle": "Highest gt_known_loc over all thresholds on these very pictures: an "
    "upper bound, not a result.",
    "oracle_threshold": "Threshold of gt_known_loc_oracle (the middle one if several reach it).",
    "miou_box_oracle": "Highest miou_box over all thresholds on these very pictures.",
    "miou_box_oracle_threshold": "Threshold of miou_box_oracle.",
    "miou_mask_oracle": "Highest miou_mask over all thresholds on these very pictures.",
    "miou_mask_oracle_threshold": "Threshold of miou_mask_oracle.",
    "max_box_acc": "MaxBoxAcc of Choe et al. (CVPR 2020): accuracy at IoU 0.5 of the largest "
    "contour's box, at the threshold that is best on these very pictures.",
    "max_box_acc_v2": "MaxBoxAccV2 of Choe et al. (arXiv 2007.04178): the best of all contours' "
    "boxes counts; mean over IoU 0.3, 0.5 and 0.7, each at its best threshold on these very "
    "pictures.",
    "pxap": "PxAP of Choe et al. (CVPR 2020): area under the curve of pixel precision against "
    "pixel recall over all thresholds, against masks.",
    "piou": "Highest IoU over all thresholds of all pixels of all pictures taken together, against "
    "masks.",
    "value": "The figure itself.",
    "iou_levels": "The same from each IoU level on, at the threshold that is best for that level.",
    "accuracy": "Share of pairs whose box has at least this IoU with a true one.",
    # what the figures are compared with
    "baselines": "Boxes that look at no picture, scored on the same pairs.",
    "whole_view": "The whole view as box.",
    "centered_box_oracle": "A centred box with the view's aspect; its area is the one that is best "
    "on these very pictures.",
    "area_fraction": "Share of the view that the centred box covers.",
    "other_maps": "The main figures of other score maps of the same network, each at its own "
    "threshold: true (the class's own channel), mean (over all channels), cam (class activation "
    "map of the classifier).",
    # what became of the pairs
    "outcomes": "Number of pairs (that have boxes) by what became of them at the threshold; each "
    "is counted once, by the first of: right, wrong_class, several_objects, part_only, too_big, "
    "missed. After the error analysis of TS-CAM (Gao et al., ICCV 2021).",
    "right": "IoU 0.5 or more with a true box, and the class has the highest score (if there are "
    "class scores).",
    "wrong_class": "IoU 0.5 or more with a true box, but another class has a higher score.",
    "part_only": "IoU below 0.5, and more than half of the box lies within the nearest true box.",
    "too_big": "IoU below 0.5, and the box covers 0.7 or more of the nearest true box.",
    "several_objects": "IoU below 0.5, and the box covers more than 0.3 of each of two or more "
    "true boxes.",
    "missed": "None of the others: the box lies elsewhere, the map is broken, or the view shows no "
    "true box.",
    # what was scored
    "model": "File of the model, or where the score maps came from.",
    "scored_on": "Data set or split that was scored.",
    "map": "Score map that is scored: a class's own channel (true, predicted), the mean over all "
    "channels (mean) or over the classes with the highest scores (topk), the classifier's class "
    "activation map (cam) or Grad-CAM (grad_cam), a blob in the centre that looks at no picture "
    "(center), or maps made elsewhere (stored).",
    "view": "What of a picture the network sees: crop (the centre 7/8, as the papers score) or "
    "whole.",
    "ten_crop": "Whether the class comes from ten crops together, as BAS does, or from the view.",
    "single_class": "The main figures on the pictures that show a single class.",
    "num_images": "Pictures that were scored.",
    "num_pairs": "Pairs of a picture and a class in it: what is scored and counted.",
    "pairs_without_box": "Pictures whose object lies outside of the view; it counts as missed.",
    "constant_maps": "Pictures whose score map has one value everywhere; the box is the view.",
    "bad_maps": "Pictures without a score map, or with NaN or infinity in it: counted as missed.",
    "bad_scores": "Pictures without class scores, or with NaN or infinity in them; their class "
    "counts as wrong.",
    "duplicates": "Pictures that came twice; only the first time counts.",
    "score_maps": "What was found in the stored score maps.",
    "class_scores": "What was found in the stored class scores.",
    "path": "Where they are stored.",
    "missing": "Pictures that nothing is stored for.",
    "unreadable": "Pictures whose stored array can't be used, with the reason.",
    "outside_0_1": "Pictures whose stored score map has values outside of 0..1.",
    "unused": "Names that are stored and belong to no picture that was scored.",
    "skipped": "Pictures that could not be read, with the reason; they do not count.",
    "per_class": "Means over classes of the per-class figures, so that each class weighs the same.",
    "classes": "The figures of each class by itself.",
    # curves
    "threshold_curves": "What the choice of the threshold does: one value at each threshold.",
    "score_map_thresholds": "The thresholds of the curves.",
    "gt_known_loc_iou_30": "gt_known_loc at each threshold, from IoU 0.3 on.",
    "gt_known_loc_iou_50": "gt_known_loc at each threshold, from IoU 0.5 on.",
    "gt_known_loc_iou_70": "gt_known_loc at each threshold, from IoU 0.7 on.",
    # of a training
    "interrupted": "Whether the training was ended by hand.",
    "epochs": "Epochs that were trained.",
    "best_epoch": "Epoch whose model was kept as the best on held-out pictures; null: the last.",
    "thresholds": "Score-map threshold chosen for each kind of map.",
    "thresholds_from": "What the thresholds were chosen from: score maps and labels, or boxes.",
    "threshold_by_maps": "The threshold chosen from score maps and labels, whichever is stored.",
    "threshold_by_boxes": "The threshold chosen from boxes, whichever is stored.",
    "gt_known_loc_by_maps": "gt_known_loc at threshold_by_maps.",
    "gt_known_loc_by_boxes": "gt_known_loc at threshold_by_boxes.",
    "threshold_chosen_on_scored": "Whether the threshold was chosen on the scored pictures: then "
    "the figures are optimistic.",
    "num_training_images": "Pictures that were trained on.",
    "num_threshold_images": "Training pictures that were held out to choose the threshold on.",
    "skipped_in_training": "Training pictures that could not be read, with the reason.",
    "minutes": "Time that the training took.",
}


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
