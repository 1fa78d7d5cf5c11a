"""Images: reading them, fitting a flow to them, scoring them, drawing new ones."""

from diffeo.images.fit import ImageReport, fit_images
from diffeo.images.pictures import save_grid, save_image
from diffeo.images.previews import SampleGrids, TensorBoard
from diffeo.images.read import Images, read_images
from diffeo.images.scores import ImageScores, pixel_baselines, score_images

__all__ = [
    "ImageReport",
    "ImageScores",
    "Images",
    "SampleGrids",
    "TensorBoard",
    "fit_images",
    "pixel_baselines",
    "read_images",
    "save_grid",
    "save_image",
    "score_images",
]
