"""Small slides for tests, in the formats that people have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

GLASS = (243, 241, 244)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Pixels of which no two regions are alike, with a border of glass."""
    pixels = np.random.default_rng(seed).integers(0, 200, (height, width, 3), dtype=np.uint8)
    pixels[:8] = pixels[-8:] = GLASS
    pixels[:, :8] = pixels[:, -8:] = GLASS
    return pixels


def smooth(height: int, width: int) -> np.ndarray:
    """Pixels that change slowly, so that resampling them has a known answer."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    return (
        np.stack([x / width * 250, y / height * 250, 0 * x + 77], axis=-1).round().astype(np.uint8)
    )


def write_tiff(path: Path, pixels: np.ndarray, mpp: float | None = None, **options: Any) -> Path:
    """Write a TIFF of one page."""
    if mpp is not None:
        options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, photometric="rgb", **options)
    return path


def write_pyramid(
    path: Path, pixels: np.ndarray, mpp: float, *, levels: int = 3, **options: Any
) -> Path:
    """Write a tiled pyramid as scanners do: every level a page, halved by averaging."""
    options = {"tile": (64, 64), "compression": "zlib", "photometric": "rgb", **options}
    with tifffile.TiffWriter(path) as tiff:
        for level in range(levels):
            per_cm = 1e4 / (mpp * 2**level)
            tiff.write(
                pixels,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=int(level > 0),
                metadata=None,
                **options,
            )
            height, width = (side // 2 * 2 for side in pixels.shape[:2])
            blocks = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
            pixels = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
    return path


def spoil_tile(path: Path, index: int, level: int = 0) -> None:
    """Overwrite the bytes of one tile."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[level]
        offset, count = page.dataoffsets[index], page.databytecounts[index]
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(b"\xff" * count)


def write_dicom(
    folder: Path, pixels: np.ndarray, mpp: float, tile: int = 32, of: Path | None = None
) -> Path:
    """Write one level of a DICOM slide, tiles uncompressed; the file's path.

    `of` is the full resolution of the slide that it is a further level of.
    """
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    height, width = pixels.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    padded = np.full((rows * tile, columns * tile, 3), 255, np.uint8)
    padded[:height, :width] = pixels
    frames = padded.reshape(rows, tile, columns, tile, 3).swapaxes(1, 2)

    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    d.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID
    d.StudyInstanceUID, d.SeriesInstanceUID = generate_uid(), generate_uid()
    d.FrameOfReferenceUID = generate_uid()
    if of is not None:
        base = pydicom.dcmread(of)
        d.StudyInstanceUID, d.SeriesInstanceUID = base.StudyInstanceUID, base.SeriesInstanceUID
        d.FrameOfReferenceUID = base.FrameOfReferenceUID
    d.PatientID, d.PatientName, d.PatientBirthDate, d.PatientSex = "p", "p^", "", ""
    d.StudyID, d.StudyDate, d.StudyTime, d.AccessionNumber = "1", "20250101", "000000", ""
    d.ReferringPhysicianName, d.SeriesNumber, d.InstanceNumber = "", 1, 1
    d.PositionReferenceIndicator, d.ContainerIdentifier = "SLIDE_CORNER", "s"
    kind = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    if of is not None:
        kind = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
    d.Modality, d.ImageType = "SM", kind
    d.Manufacturer, d.ManufacturerModelName = "x", "x"
    d.DeviceSerialNumber, d.SoftwareVersions = "1", "1"
    d.ContentDate, d.ContentTime, d.AcquisitionDateTime = "20250101", "000000", "20250101000000"
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PlanarConfiguration = 3, "RGB", 0
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 8, 8, 7, 0
    d.Rows, d.Columns, d.NumberOfFrames = tile, tile, rows * columns
    d.TotalPixelMatrixRows, d.TotalPixelMatrixColumns = height, width
    d.TotalPixelMatrixFocalPlanes, d.NumberOfOpticalPaths = 1, 1
    d.ImagedVolumeWidth, d.ImagedVolumeHeight = width * mpp / 1e3, height * mpp / 1e3
    d.ImagedVolumeDepth, d.FocusMethod, d.ExtendedDepthOfField = 0.001, "AUTO", "NO"
    d.SpecimenLabelInImage, d.BurnedInAnnotation = "NO", "NO"
    d.VolumetricProperties, d.LossyImageCompression = "VOLUME", "00"
    d.DimensionOrganizationType = "TILED_FULL"
    d.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin, measures, shared, optical = Dataset(), Dataset(), Dataset(), Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 0, 0
    d.TotalPixelMatrixOriginSequence = Sequence([origin])
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1e3, mpp / 1e3], 0.001
    measures.SpacingBetweenSlices = 0.001
    shared.PixelMeasuresSequence = Sequence([measures])
    frame_type = Dataset()
    frame_type.FrameType = d.ImageType
    shared.WholeSlideMicroscopyImageFrameTypeSequence = Sequence([frame_type])
    d.SharedFunctionalGroupsSequence = Sequence([shared])
    optical.OpticalPathIdentifier = "0"
    illumination = Dataset()
    illumination.CodeValue, illumination.CodingSchemeDesignator = "111744", "DCM"
    illumination.CodeMeaning = "Brightfield illumination"
    optical.IlluminationTypeCodeSequence = Sequence([illumination])
    d.OpticalPathSequence = Sequence([optical])
    d.PixelData = frames.tobytes()
    d["PixelData"].VR = "OB"
    path = folder / f"level-{len(list(folder.iterdir()))}.dcm"
    pydicom.dcmwrite(path, d, enforce_file_format=True)
    return path
