"""Loaders that others wrote, measured as `scripts/bench/loader` asks. Each prints a line of JSON.

loader_rivals.py RIVAL FOLDER THREADS SAMPLES    FOLDER has shards/*.tar and drawn/train/images
loader_rivals.py crop IMAGES HEIGHT QUALITY      cuts pictures to a height, from the middle, in place
"""

import io
import itertools
import json
import os
import sys
import time
from pathlib import Path

BATCH = 64
SIZE = 224
# More than any of the loaders makes ahead: two batches for each of two workers.
WARM_UP = 6
SCALE, RATIO = (0.9, 1.0), (3 / 4, 4 / 3)


def cpu_seconds():
    """Processor time of this process and all that it has started."""
    ticks, parents = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            ticks[int(entry.name)] = int(fields[11]) + int(fields[12])

    def is_ours(process):
        while process in parents:
            if process == os.getpid():
                return True
            process = parents[process]
        return False

    return sum(ticks[process] for process in ticks if is_ours(process)) / os.sysconf("SC_CLK_TCK")


def measure(batches, samples):
    """Counts samples of batches, after those that pay for starting and that were made ahead."""
    batches = iter(batches)
    for _ in range(WARM_UP):
        next(batches)
    start, start_cpu, count = time.perf_counter(), cpu_seconds(), 0
    while count < samples:
        count += next(batches)
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - start_cpu
    print(json.dumps({"samples": count, "seconds": seconds, "cpu_seconds": cpu}), flush=True)
    # Threads and workers of some of these loaders do not end by themselves.
    os._exit(0)


def shards(folder):
    return sorted(str(path) for path in (folder / "shards").glob("*.tar"))


def pictures(folder):
    return sorted(str(path) for path in (folder / "drawn/train/images").rglob("*.jpg"))


def webdataset(folder, threads, samples):
    """As OpenCLIP does it: Pillow and torchvision in worker processes, numbers in planes."""
    import webdataset as wds
    from PIL import Image

    try:
        import torch
        from torchvision import transforms
    except ImportError:
        return webdataset_without_torch(wds, Image, folder, threads, samples)
    torch.set_num_threads(1)
    transform = transforms.Compose([
        transforms.RandomResizedCrop(SIZE, scale=SCALE, ratio=RATIO, interpolation=transforms.InterpolationMode.BICUBIC),
        lambda image: image.convert("RGB"),
        transforms.ToTensor(),
        transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ])
    dataset = wds.DataPipeline(
        wds.ResampledShards(shards(folder)),
        wds.tarfile_to_samples(),
        wds.decode("pilrgb", handler=wds.warn_and_continue),
        wds.rename(image="jpg;png;jpeg;webp", text="txt"),
        wds.map_dict(image=transform, text=lambda text: text),
        wds.to_tuple("image", "text"),
        wds.batched(BATCH, partial=False),
    )
    loader = wds.WebLoader(dataset, batch_size=None, shuffle=False, num_workers=threads, persistent_workers=True)
    measure((len(images) for images, _ in loader), samples)


def webdataset_without_torch(wds, Image, folder, threads, samples):
    """The same with processes of Python's own, where there is no PyTorch."""
    import multiprocessing

    import numpy as np

    def work(queue):
        random = np.random.default_rng(os.getpid())
        mean, deviation = np.float32([0.481, 0.458, 0.408]), np.float32([0.269, 0.261, 0.276])
        dataset = wds.DataPipeline(wds.ResampledShards(shards(folder)), wds.tarfile_to_samples())
        images = []
        for sample in dataset:
            image = Image.open(io.BytesIO(sample["jpg"]))
            fraction = float(random.uniform(*SCALE)) ** 0.5
            width, height = int(image.width * fraction), int(image.height * fraction)
            left = int(random.integers(0, image.width - width + 1))
            top = int(random.integers(0, image.height - height + 1))
            image = image.crop((left, top, left + width, top + height)).resize((SIZE, SIZE), Image.BICUBIC)
            pixels = (np.asarray(image.convert("RGB"), dtype=np.float32) / 255 - mean) / deviation
            images.append(pixels.transpose(2, 0, 1))
            if len(images) == BATCH:
                queue.put(np.stack(images))
                images = []

    queue = multiprocessing.Queue(2 * threads)
    for _ in range(threads):
        multiprocessing.Process(target=work, args=(queue,), daemon=True).start()
    measure((len(queue.get()) for _ in itertools.count()), samples)


def dali(folder, threads, samples):
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=BATCH, num_threads=threads, device_id=None)
    def pipeline():
        jpegs, _ = fn.readers.webdataset(paths=shards(folder), ext=["jpg", "txt"], random_shuffle=True)
        images = fn.decoders.image_random_crop(
            jpegs, device="cpu", random_area=list(SCALE), random_aspect_ratio=list(RATIO))
        images = fn.resize(images, size=[SIZE, SIZE], interp_type=types.INTERP_CUBIC, antialias=True)
        return fn.transpose(images, perm=[2, 0, 1])

    built = pipeline()
    built.build()
    measure((len(built.run()[0]) for _ in itertools.count()), samples)


def datago(folder, threads, samples):
    os.environ["DATAGO_MAX_TASKS"] = str(threads)
    from datago import DatagoClient

    # It reads a folder once: links make the folder large enough.
    many = folder / "linked"
    wanted = samples + (WARM_UP + 2) * BATCH
    many.mkdir(exist_ok=True)
    for number, path in zip(range(wanted), itertools.cycle(pictures(folder))):
        link = many / f"{number:06}.jpg"
        if not link.exists():
            os.link(path, link)
    client = DatagoClient(json.dumps({
        "source_type": "file",
        "source_config": {"root_path": str(many), "rank": 0, "world_size": 1,
                          "random_sampling": True},
        "image_config": {"crop_and_resize": True, "default_image_size": SIZE, "downsampling_ratio": 16,
                         "min_aspect_ratio": 0.99, "max_aspect_ratio": 1.01, "pre_encode_images": False},
        "limit": 1_000_000,
        "samples_buffer_size": 64,
    }))

    def batches():
        while True:
            for count in range(BATCH):
                if client.get_sample() is None:
                    raise RuntimeError(f"it ended after {count} samples of a batch")
            yield BATCH

    measure(batches(), samples)


def spdl(folder, threads, samples):
    """Decoding and resizing by FFmpeg's filters, as its documentation shows; it has no random crop."""
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    files = itertools.cycle(pictures(folder))

    def batches():
        while True:
            yield list(itertools.islice(files, BATCH))

    def load(paths):
        return spdl.io.load_image_batch(paths, width=SIZE, height=SIZE, pix_fmt="rgb24", strict=True)

    # A pipeline passes over failures for ever; without FFmpeg's libraries there would be nothing else.
    load(pictures(folder)[:1])
    built = PipelineBuilder().add_source(batches()).pipe(load, concurrency=threads).add_sink(2)
    pipeline = built.build(num_threads=threads)
    with pipeline.auto_stop():
        measure((BATCH for _ in pipeline), samples)


def ffcv(folder, threads, samples):
    """Its own format, written beforehand, holds the same JPEGs. It shrinks by area, not bicubically."""
    import numpy as np
    from ffcv.fields import IntField
    from ffcv.fields.bytes import BytesField
    from ffcv.fields.rgb_image import RGBImageField
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.writer import DatasetWriter
    from PIL import Image

    beton = folder / "dataset.beton"
    if not beton.exists():
        files = pictures(folder)

        class Pictures:
            def __len__(self):
                return len(files)

            def __getitem__(self, at):
                return Image.open(files[at]).convert("RGB"), at

        quality = 85 if folder.name == "512" else 90
        fields = {"image": RGBImageField(write_mode="jpg", jpeg_quality=quality), "label": IntField()}
        DatasetWriter(str(beton), fields, num_workers=threads).from_indexed_dataset(Pictures())
    loader = Loader(
        str(beton), batch_size=BATCH, num_workers=threads, order=OrderOption.RANDOM, os_cache=True, drop_last=True,
        pipelines={"image": [RandomResizedCropRGBImageDecoder((SIZE, SIZE), SCALE, RATIO), ToTensor()],
                   "label": [IntDecoder(), ToTensor()]})
    # The first epoch pays for compiling.
    for _ in loader:
        pass
    measure((len(images) for _ in itertools.count() for images, _ in loader), samples)


def crop(images, height, quality):
    from PIL import Image

    for path in images.rglob("*.jpg"):
        image = Image.open(path)
        top = (image.height - height) // 2
        image.crop((0, top, image.width, top + height)).save(path, quality=quality, subsampling=2)


if __name__ == "__main__":
    what, folder, *numbers = sys.argv[1:]
    globals()[what](Path(folder), *(int(number) for number in numbers))
