"""Data: tables and images, their scores and samples, toys with exact entropies, plain densities to beat."""

from diffeo.data.baselines import baselines
from diffeo.data.image_scores import ImageScores, pixel_baselines, score_images
from diffeo.data.images import Images, read_images
from diffeo.data.pictures import save_grid, save_image
from diffeo.data.samples import sample_table
from diffeo.data.schema import Schema
from diffeo.data.scores import Scores, score_table
from diffeo.data.tables import Table
from diffeo.data.toys import TOYS, Toy

__all__ = [
    "TOYS",
    "ImageScores",
    "Images",
    "Schema",
    "Scores",
    "Table",
    "Toy",
    "baselines",
    "pixel_baselines",
    "read_images",
    "sample_table",
    "save_grid",
    "save_image",
    "score_images",
    "score_table",
]
