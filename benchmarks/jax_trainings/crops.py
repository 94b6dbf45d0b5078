"""Random crops of pictures, drawn and cut by JAX."""

import jax
import jax.numpy as jnp


def random_crops(key, pictures, size, min_crop, color_jitter):
    """Cuts a random crop out of each picture and mirrors half of them.

    As `wsol_tf.data.stream` does it, but for the random numbers, and in that crops are cut from
    pictures that were resized before: crops of another side than `size` are read between the
    pixels (bilinear, not antialiased).

    Args:
        key: of JAX's random numbers.
        pictures: uint8 `[batch, side, side, 3]`.
        size: side of the results in pixels.
        min_crop: least side of a crop relative to `size`; 1: all are of `size`.
        color_jitter: largest share by which contrast, brightness and saturation are changed (an
            experiment that the project does not have); a third of it for each colour. 0: none.

    Returns:
        float32 `[batch, size, size, 3]` in 0..255.
    """
    count, side = pictures.shape[:2]
    of_side, of_place, of_mirror, of_light, of_tint = jax.random.split(key, 5)
    low, high = jnp.log(min_crop * size), jnp.log(side)
    drawn = jnp.exp(jax.random.uniform(of_side, (count,), minval=low, maxval=high))
    is_plain = min_crop >= 1
    sides = jnp.where(is_plain, size, jnp.minimum(drawn, side))
    room = side - sides[:, None]
    places = jax.random.uniform(of_place, (count, 2))
    # Whole pixels, each equally likely, where nothing is resized.
    whole = jnp.minimum(jnp.floor(places * (room + 1)), room)
    places = jnp.where(is_plain, whole, places * room)
    rows = _reading(places[:, 0], sides, size, side)
    columns = _reading(places[:, 1], sides, size, side)
    is_mirrored = jax.random.bernoulli(of_mirror, 0.5, (count, 1, 1))
    columns = jnp.where(is_mirrored, columns[:, ::-1], columns)
    images = jnp.einsum("bij,bjkc->bikc", rows, pictures.astype(jnp.float32))
    images = jnp.einsum("bmk,bikc->bimc", columns, images)
    return _jittered(of_light, of_tint, images, color_jitter)


def _reading(first, length, size, side):
    """Matrices `[batch, size, side]` that read `length` pixels from `first` on at `size` places."""
    at = first[:, None] + (jnp.arange(size) + 0.5) * length[:, None] / size - 0.5
    at = jnp.clip(at, 0, side - 1)
    return jnp.maximum(0.0, 1 - jnp.abs(at[:, :, None] - jnp.arange(side)))


def _jittered(of_light, of_tint, images, most):
    count = images.shape[0]
    contrast, brightness, saturation = jnp.moveaxis(
        1 + most * jax.random.uniform(of_light, (count, 3, 1, 1, 1), minval=-1.0), 1, 0
    )
    mean = jnp.mean(images, (1, 2, 3), keepdims=True)
    changed = (images - mean) * contrast + mean * brightness
    grey = jnp.mean(changed, -1, keepdims=True)
    changed = grey + (changed - grey) * saturation
    tint = 1 + most / 3 * jax.random.uniform(of_tint, (count, 1, 1, 3), minval=-1.0)
    return jnp.where(most > 0, jnp.clip(changed * tint, 0.0, 255.0), images)
