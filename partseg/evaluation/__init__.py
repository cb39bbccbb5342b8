"""How good predictions are: average precision, panoptic quality of objects and parts, mean IoU, errors."""
