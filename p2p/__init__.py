"""Train pix2pix on pairs of images, export its generator, and translate folders of images."""

__version__ = "0.2.0"
