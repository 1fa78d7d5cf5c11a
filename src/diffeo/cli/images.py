"""``diffeo images``: fit, sample, interpolate, score, reconstruct; thin skins over what Python has too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffeo.cli import options

images = typer.Typer(
    name="images",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Learn the density of images: fit, sample, interpolate, score, reconstruct. All that a model of "
    "images can be conditioned on here is a class: `fit --classes`, then `--given CLASS`.",
    epilog="Example: `diffeo images fit PHOTOS -o faces.safetensors --size 32 --max-seconds 600`",
)

ModelFile = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Model file that `diffeo images fit` wrote.")
]
Source = Annotated[
    Path,
    typer.Argument(metavar="IMAGES", help="Folder of PNG, JPEG and WebP, one such file, or an NPY or NPZ."),
]
Picture = Annotated[Path, typer.Option("-o", "--output", metavar="PNG", help="Picture to write.")]
Given = Annotated[
    str | None,
    typer.Option("--given", metavar="CLASS", help="Class, by name or number, of a model with classes."),
]
Workers = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Threads that decode; default: one a processor.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at a file that cannot be read; else skip it.")]


@images.command(
    epilog="Example: `diffeo images fit PHOTOS -o faces.safetensors --size 32 --flips --checkpoint faces.run`"
)
def fit(
    source: Source,
    output: options.NewModel,
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="Kind of flow; default: Glow.")] = None,
    set_: options.Fields = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="S", help="Crop and resize to S x S, or HxW; default: as they are, if all agree."
        ),
    ] = None,
    bits: Annotated[int, typer.Option(min=1, max=8, help="Bits kept of each pixel, from the highest.")] = 8,
    gray: Annotated[
        bool | None, typer.Option("--gray/--rgb", help="Make all gray or RGB; default: gray if all are.")
    ] = None,
    classes: Annotated[
        bool,
        typer.Option("--classes", help="Condition on classes: the folders in IMAGES, or `y` of an NPZ."),
    ] = False,
    uniform: Annotated[
        bool,
        typer.Option("--uniform", help="Uniform dequantization, where the preset learns it: a looser bound."),
    ] = False,
    flips: Annotated[bool, typer.Option("--flips", help="Mirror images at random in training.")] = False,
    max_seconds: Annotated[
        float | None,
        typer.Option(metavar="S", min=0.1, help="Seconds from reading to writing; default: 600."),
    ] = None,
    max_steps: options.MaxSteps = None,
    seed: options.Seed = 0,
    checkpoint: options.RunFile = None,
    strict: Strict = False,
    workers: Workers = None,
    samples: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for grids of samples as training goes.")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for TensorBoard's curves and samples.")
    ] = None,
) -> None:
    """Fit a flow to images and write the model.

    Prints what became of the files, trains with a progress bar, and ends with the held-out bits per dimension
    beside those of plain models. Images of another shape are cropped around their middle, then resized;
    transparent ones are put on black.
    """
    options.check_paths({"--output": output, "--checkpoint": checkpoint}, {"IMAGES": source})
    options.check_preset(preset or "Glow", images=True)

    from diffeo.cli import report
    from diffeo.images.previews import check_folder, check_tensorboard

    options.check_folders({"--samples": samples, "--tensorboard": tensorboard}, {"IMAGES": source})
    for folder in (samples, tensorboard):
        if folder is not None:
            check_folder(folder)
    if tensorboard is not None:
        check_tensorboard()
    kind = options.preset_class(preset or "Glow", images=True)
    settings = options.settings(kind, set_ or ())

    import diffeo
    from diffeo.encodings import Dequantization
    from diffeo.images import read_images
    from diffeo.images.fit import class_context, default_preset

    with options.kept(checkpoint) as run:
        found = read_images(
            source,
            size=options.parse_size(size),
            channels=None if gray is None else 1 if gray else 3,
            labels=classes,
            strict=strict,
            workers=workers,
        )
        model = default_preset(found.shape, class_context(found), kind, **settings)
        plain = Dequantization(found.shape, bits, logit=model.encoding().logit)
        report.say_images(found)
        flow, result = diffeo.fit_images(
            found,
            preset=model,
            bits=None if uniform else bits,
            encoding=plain if uniform else None,
            flips=flips,
            max_seconds=max_seconds,
            max_steps=max_steps,
            seed=seed,
            checkpoint=run,
            began=options.began(),
            samples=samples,
            tensorboard=tensorboard,
        )
        options.save_model(flow, output, run)
    report.say_image_result(result, output)


@images.command(
    epilog="Example: `diffeo images sample faces.safetensors -o grid.png -n 36 --temperature 0.7`"
)
def sample(
    model: ModelFile,
    output: Picture,
    n: Annotated[int, typer.Option("-n", "--images", metavar="N", min=1, help="Images to draw.")] = 16,
    given: Given = None,
    temperature: Annotated[
        float,
        typer.Option(metavar="T", min=1e-6, help="Below 1: cleaner, less varied; 1 is the model itself."),
    ] = 1.0,
    columns: Annotated[
        int | None, typer.Option(metavar="C", min=1, help="Images in a row; default: as many as rows.")
    ] = None,
    seed: options.DrawSeed = None,
) -> None:
    """Draw new images from a model, as a grid.

    From a model with classes, each image is of the next class unless --given says which. Where the model was
    trained with noise on the images, it is taken out.
    """
    from diffeo.images import sample_images
    from diffeo.images.pictures import check_png, save_grid

    check_png(output)
    options.check_paths({"--output": output}, {"MODEL": model})
    drawn = sample_images(options.load_model(model), n, given=given, temperature=temperature, seed=seed)
    save_grid(drawn, output, columns)


@images.command(epilog="Example: `diffeo images interpolate faces.safetensors anna.png ben.png -o strip.png`")
def interpolate(
    model: ModelFile,
    first: Annotated[Path, typer.Argument(metavar="A", help="Image to start from.")],
    last: Annotated[Path, typer.Argument(metavar="B", help="Image to end at.")],
    output: Picture,
    steps: Annotated[
        int, typer.Option(metavar="N", min=2, help="Images of the strip, both ends counted.")
    ] = 9,
    given: Given = None,
) -> None:
    """Go from one image to another through the model's latent space, as a strip.

    The images are cropped and resized to the model's as in `diffeo images fit`.
    """
    from diffeo import latents
    from diffeo.cli import report
    from diffeo.images import contexts_for, images_for
    from diffeo.images.pictures import check_png, save_grid

    check_png(output)
    options.check_paths({"--output": output}, {"MODEL": model, "A": first, "B": last})
    flow = options.load_model(model)
    ends = [images_for(flow, path, strict=True) for path in (first, last)]
    for end in ends:
        report.say_images(end)
    x0, x1 = (end.pixels[:1] for end in ends)
    strip = latents.interpolate(flow, x0, x1, steps, contexts_for(flow, given, 1), batch_size=64)
    save_grid(strip[:, 0], output, steps)


@images.command(epilog="Example: `diffeo images score faces.safetensors PHOTOS -o scores.csv --draws 16`")
def score(
    model: ModelFile,
    source: Source,
    output: options.TableOut,
    draws: Annotated[
        int | None,
        typer.Option(metavar="K", min=1, max=4096, help="Draws of noise: more give a tighter bound, slower."),
    ] = None,
    given: Given = None,
    strict: Strict = False,
    workers: Workers = None,
) -> None:
    """Score images under a model.

    Writes each image's `name`, its `bits_per_dim` (lower is better) and its `log_prob`, the log-likelihood of
    the discrete image in nats, both as bounds that hold on average: single images may have bits below 0. The
    images are cropped and resized to the model's.
    """
    from diffeo.cli import report
    from diffeo.images import images_for, score_images
    from diffeo.tables.files import write_columns

    options.check_paths({"--output": output}, {"MODEL": model, "IMAGES": source}, options.WITH_NAMES)
    flow = options.load_model(model)
    found = images_for(flow, source, strict=strict, workers=workers)
    report.say_images(found, err=True)
    scores = score_images(flow, found, given=given, num_draws=draws)
    report.say_notes(scores.notes)
    write_columns(output, scores.columns())


@images.command(epilog="Example: `diffeo images reconstruct faces.safetensors PHOTOS -o there-and-back.png`")
def reconstruct(
    model: ModelFile,
    source: Source,
    output: Picture,
    n: Annotated[
        int, typer.Option("-n", "--images", metavar="N", min=1, help="Images to show, from the first.")
    ] = 8,
    given: Given = None,
    strict: Strict = False,
    workers: Workers = None,
) -> None:
    """Take images to the latent space and back: the originals above what comes back.

    Says the largest difference of a pixel, which shows how well the model inverts.
    """
    import torch

    from diffeo import latents
    from diffeo.cli import report
    from diffeo.images import contexts_for, images_for
    from diffeo.images.pictures import check_png, save_grid

    check_png(output)
    options.check_paths({"--output": output}, {"MODEL": model, "IMAGES": source})
    flow = options.load_model(model)
    found = images_for(flow, source, strict=strict, workers=workers)
    report.say_images(found)
    shown = found.pixels[:n]
    back = latents.reconstruct(flow, shown, contexts_for(flow, given, len(shown)), batch_size=64)
    save_grid(torch.cat([shown, back]), output, len(shown))
    report.say_error(shown, back)
