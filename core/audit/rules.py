"""What the audit can find: of each rule its severity, why it matters and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "remark"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "remark")


@dataclass(frozen=True)
class Rule:
    """A kind of finding.

    Attributes:
        title: what is found, in a few words.
        why: why it matters.
        todo: what to do about it.
    """

    severity: Severity
    title: str
    why: str
    todo: str


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        rule: key of `RULES`.
        saw: what was seen, with its numbers.
        cases: the cases that it concerns.
    """

    rule: str
    saw: str
    cases: tuple[str, ...] = ()


_MM = "Figures in mm and ml are wrong or left out, and so is every choice of a patch or a grid in mm."
_HU = "A window in HU shows something else in this scan than in the others, and figures in HU mean nothing."
_LEAK = "If one is trained on and the other tested, the test result is too good."
_MASK = "The network learns that something else is liver, and every score of this case is wrong."

RULES: dict[str, Rule] = {
    "refused": Rule(
        "error",
        "Cannot be used",
        "The case would be missing from the store, for prepare refuses it.",
        "Get the file anew from where it came, mend what the message names, or leave the case out of the source.",
    ),
    "found_twice": Rule(
        "error",
        "Two cases of one name",
        "Nothing says which one is meant, so prepare refuses both.",
        "Keep one of the files.",
    ),
    "duplicate": Rule(
        "error",
        "The same scan under two names",
        f"{_LEAK} The store keeps the first and refuses the others.",
        "Leave one out, or correct the table of files if one of them should be another scan.",
    ),
    "two_labels": Rule(
        "error",
        "One scan with two different labels",
        "At most one of them can be right, and the network is told both.",
        "Look at both pictures, keep the label that fits; two readers' labels belong into two data sets.",
    ),
    "same_label": Rule(
        "error",
        "One label under two different scans",
        "It can fit one patient only: a file was copied to the wrong name. " + _MASK,
        "Look at the pictures; find the label of the scan that it does not fit.",
    ),
    "near_duplicate": Rule(
        "error",
        "Nearly the same scan under two patients",
        "They show the same slices (re-saved, mirrored, or cut along z), so a split may part them. " + _LEAK,
        "Give both the same patient in the source (a table has a column for it), or leave one out.",
    ),
    "mirrored_mask": Rule(
        "error",
        "Mask mirrored against its scan",
        _MASK,
        "Mirror the label along the axes named and save it with the scan's affine; look at the picture afterwards.",
    ),
    "mask_off_liver": Rule(
        "error",
        "Mask does not lie on a liver",
        f"It covers fat, lung, air or bone, and neither mirroring nor a small shift helps. {_MASK}",
        "See whether the label belongs to another scan (two patients mixed up) or to another series of this one.",
    ),
    "liver_left": Rule(
        "warning",
        "Liver on the patient's left",
        "Scan and mask agree, so the affine is likely to swap left and right (situs inversus: one in 10,000).",
        "Look at heart, stomach and spine; take the scan from its original, or correct the affine of both files.",
    ),
    "hu_scale": Rule(
        "error",
        "Intensities are not HU",
        f"{_HU} A rescale slope or intercept was lost or applied twice.",
        "Convert again from DICOM with RescaleSlope and RescaleIntercept, or set scl_slope and scl_inter.",
    ),
    "tumour_without_liver": Rule(
        "error",
        "Tumour, but no liver in the label",
        "Label 1 means liver and 2 tumour inside it; a label with 2 alone was converted wrongly, or not mapped.",
        "Map the label's numbers in the source, or add the liver.",
    ),
    "shifted_mask": Rule(
        "warning",
        "Mask shifted against its scan",
        "Its outline lies beside the scan's edges: surface distances are off and small lesions miss their target.",
        "Compare the origins of scan and label, and whether one of them lacks slices at an end.",
    ),
    "windowed": Rule(
        "warning",
        "Intensities were windowed or rescaled before",
        f"What lies outside of the window is lost for good. {_HU}",
        "Take the original scans; or say intensity: windowed of the source, and figures in HU are left blank.",
    ),
    "spacing_untrusted": Rule(
        "warning",
        "Spacing cannot be trusted",
        "The case is left out of every figure in mm and ml, and its orientation is a guess.",
        "Take the scan from its original, or compare its picture with the others' for a wrong orientation.",
    ),
    "mixed_affines": Rule(
        "warning",
        "Identity affines beside real ones",
        "Part of the data set lost its geometry on the way: these cases can lie upside down, and have no mm.",
        "Look at their pictures; take them from the original, or leave them out where millimetres count.",
    ),
    "spacing_implausible": Rule(
        "warning",
        "Voxel size implausible for an abdominal CT",
        f"{_MM} A wrong unit or a lost header are the usual reasons.",
        "Compare with the DICOM header (PixelSpacing, positions of the slices).",
    ),
    "body_implausible": Rule(
        "warning",
        "Body has an implausible size",
        f"The spacing does not fit the patient. {_MM}",
        "Compare PixelSpacing of the original; zoomed reconstructions saved without it are the usual reason.",
    ),
    "liver_volume": Rule(
        "warning",
        "Liver volume implausible",
        "Livers have 800 to 2500 ml, after resection less: the mask is not whole, or the spacing is wrong.",
        "Look at the picture and at the spacing.",
    ),
    "forms_disagree": Rule(
        "warning",
        "qform and sform disagree",
        "Programs that prefer one place and size the scan differently from those that prefer the other.",
        "Find out which is right and write it to both. Hepar takes the sform.",
    ),
    "not_axial": Rule(
        "warning",
        "Not an axial acquisition",
        "A network that goes by axial slices sees cuts through thick sagittal or coronal ones.",
        "Leave it out, or keep it knowingly: it is another kind of picture.",
    ),
    "oblique": Rule(
        "remark",
        "Axes are oblique to the body's",
        "Nothing is resampled for it: slices stay as they were taken, tilted against the scanner.",
        "Nothing, if it is a few degrees.",
    ),
    "empty_label": Rule(
        "warning",
        "Label is empty",
        "The case says that there is no liver in the scan, and trains the network so.",
        "Leave the label out if the scan is not labelled; leave the case out if it shows no liver.",
    ),
    "cut_liver": Rule(
        "warning",
        "Liver reaches the end of the scan",
        "The liver is not whole: its volume is too small, and lesions at the cut count in part.",
        "Nothing, if the scan really ends there; else look for missing slices.",
    ),
    "lesion_outside": Rule(
        "warning",
        "Lesion outside of the liver",
        "It touches no liver voxel: a slip of the brush, or another organ's lesion. It counts as a lesion to find.",
        "Look at it in a viewer; remove it from the label, or complete the liver around it.",
    ),
    "liver_pieces": Rule(
        "warning",
        "Liver in several large pieces",
        "A liver is one piece, unless the label lacks slices or the scan does.",
        "Look at the label between the pieces.",
    ),
    "missing_slices": Rule(
        "warning",
        "Jump between two slices: some may be missing",
        "Where slices are missing, the spacing is wrong there and lesions are cut.",
        "Count the files of the original series.",
    ),
    "constant_slices": Rule(
        "warning",
        "Slices without content",
        "They hold one value only: padding, or slices that were lost.",
        "Cut them off if they lie at the ends; look for the originals if they lie within.",
    ),
    "repeated_slices": Rule(
        "warning",
        "Slices repeated",
        "Neighbouring slices are the same to the last bit: the scan was stretched, or a file was copied twice.",
        "Count the files of the original series.",
    ),
    "ircadb": Rule(
        "warning",
        "3D-IRCADb inside of LiTS",
        "LiTS volumes 28 to 47 (or 48) are copies of 3D-IRCADb: testing on that set after training on these leaks.",
        "Never use 3D-IRCADb as an external test set of a model that saw these cases.",
    ),
    "same_patient": Rule(
        "remark",
        "Patients with several scans",
        "Their scans must lie on one side of a split. The splits here see to it.",
        "Mind it if you split by hand.",
    ),
    "near_duplicate_known": Rule(
        "remark",
        "Nearly the same scan, and known to be one patient",
        "Such scans count twice in every mean.",
        "Leave one out if it is the same acquisition.",
    ),
    "axes_differ": Rule(
        "remark",
        "Orientation differs between cases",
        "Nothing is wrong: the store turns all into one orientation. A program that ignores the affine mixes them up.",
        "Nothing.",
    ),
    "declared_windowed": Rule(
        "remark",
        "Declared as windowed by the source",
        "Figures in HU are left blank.",
        "Nothing.",
    ),
    "padding": Rule(
        "remark",
        "Padding values",
        "They stand for nothing measured (outside of the scanner's circle) and pull on means. A window clips them.",
        "Nothing; mind them in statistics of your own.",
    ),
    "float_label": Rule(
        "remark",
        "Label stored as floats",
        "Its values are whole, so it is used. Floats often mean that a program resampled the label.",
        "Nothing, if the outline in the picture is sharp.",
    ),
    "label_header": Rule(
        "remark",
        "Headers of scan and label differ",
        "Both lie on one grid once the orientation is accounted for; programs that ignore it would mix them up.",
        "Nothing.",
    ),
    "speckles": Rule(
        "remark",
        "Tiny islands in the label",
        "Each counts as a lesion, or a piece of liver, of its own; one of a few voxels is a slip of the brush.",
        "Remove islands of a few voxels from the label.",
    ),
    "holes": Rule(
        "remark",
        "Holes in the mask",
        "Background inside of the liver trains the network to leave holes.",
        "Fill them if they are no vessels left out on purpose.",
    ),
    "no_label": Rule(
        "remark",
        "No label",
        "The scan is stored and takes part in no split.",
        "Nothing.",
    ),
    "reader": Rule(
        "remark",
        "Remarks of the reader",
        "Something was mended, or taken as it was, while the files were read.",
        "See that it is what you want.",
    ),
}
