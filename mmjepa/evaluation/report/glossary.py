"""The report's terms in plain words."""

GLOSSARY = {
    "Baseline": "Video-JEPA with the plain objective: from the visible rest of a clip, predict the representations of "
    "hidden blocks.",
    "FWM-HW-LD": "The baseline plus three terms: factors for appearance and dynamics (FWM), more weight on hard "
    "regions (HW), and a small network that predicts the next step's dynamics (LD).",
    "Random init": "The same network, never trained. A trained encoder that does not beat it has learnt nothing of "
    "use here.",
    "Raw patches": "Pixels cut into blocks, without any network.",
    "Majority class": "Always answering with the most frequent class.",
    "R@K": "Share of queries for which a true match is among the first K candidates.",
    "MedR, MnR": "Median and mean rank of the first true match; 1 is best.",
    "Chance": "What a random order would reach.",
    "Dropout rate": "Share of a clip's frames that are lost. Every encoder loses the same frames.",
    "Pattern": "Which frames are lost: random ones, or a burst (a contiguous block).",
    "Fill": "What stands in for lost frames: hold repeats the last frame received, blank shows the mean colour, mask "
    "leaves the gap out, predict lets the JEPA predictor fill it.",
    "Absolute robustness": "1 − (clean R@1 − lossy R@1), lossy being the mean over all rates above 0; 1 means nothing "
    "was lost.",
    "Relative robustness": "1 − (clean R@1 − lossy R@1) / clean R@1. A weak encoder scores well here by having little "
    "to lose.",
    "Area": "Area under R@1 / clean R@1 over the dropout rate, divided by the range of rates; 1 means no loss.",
    "Half rate": "The dropout rate at which R@1 falls to half of its clean value.",
    "Probe": "A small classifier trained on frozen features: what can be read out of them.",
    "Single frame, shuffled frames": "The probe sees one frame only, or the frames in random order: what it still "
    "gets right is not due to motion.",
    "Hard negative": "A caption that is wrong in one thing only: the object's appearance, or its motion.",
    "95 % interval": "The range that resampling the test videos (and the training seeds, where there are several) "
    "gives in 95 of 100 cases.",
    "RankMe": "How many directions the features really use. Near 1 means collapse.",
    "Between-clip share": "How much of the features' variance tells clips apart, as opposed to places within a clip.",
}
