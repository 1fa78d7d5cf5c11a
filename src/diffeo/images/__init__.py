"""Images: reading them, fitting a flow to them, scoring them, drawing new ones."""

from diffeo.images.fit import ImageReport, fit_images
from diffeo.images.model import class_names, contexts_for, images_for
from diffeo.images.pictures import save_grid, save_image
from diffeo.images.previews import SampleGrids, TensorBoard
from diffeo.images.read import Images, read_images
from diffeo.images.samples import sample_images
from diffeo.images.scores import ImageScores, pixel_baselines, pixel_error, score_images

__all__ = [
    "ImageReport",
    "ImageScores",
    "Images",
    "SampleGrids",
    "TensorBoard",
    "class_names",
    "contexts_for",
    "fit_images",
    "images_for",
    "pixel_baselines",
    "pixel_error",
    "read_images",
    "sample_images",
    "save_grid",
    "save_image",
    "score_images",
]
