"""Networks of BAS with the values that its own code gives with the same weights."""

import numpy as np
import pytest

from bas_tensors import tensors_of
from wsol_tf.model import bas

PLACES = ((0, 0), (13, 20), (27, 27))  # of F_f: both borders, and between
# What BAS's code (github.com/wpy1999/BAS at 54c395e, CUB) gave in PyTorch 2.14 on a CPU, with heads
# of 8 channels and 3 classes and the weights of `tensors_of`: class scores; then at PLACES F_f in
# channels 0, 5 and 100, F_c at half of them, F_cam; and the means of these three.
EXPECTED = {
    "mobilenet_v1": (
        [0.244729, 0.061778, 0.466596],
        [[0.391085, 0.341639, 0.0450446], [0, 0.89955, 0], [0.00999219, 0.502218, 0]],
        [[0.283458, 0, 0.230747], [0.261336, 0, 0.377957], [0.227847, 0.0668293, 0.18513]],
        [
            [0.388087, 0.459622, 0.51298],
            [0.588703, 0.524767, 0.169396],
            [0.647841, 0.349342, 0.421123],
        ],
        (0.277651, 0.257701, 0.43878),
    ),
    "vgg16": (
        [3.9341, 2.13481, 6.47256],
        [[0.292989, 3.76099, 0], [6.57207, 0, 0.343307], [2.13227, 0, 0]],
        [[0, 1.26845, 1.63539], [5.9117, 1.01394, 8.73518], [2.28947, 0, 1.33855]],
        [
            [0.722701, 0.0619337, 0.977543],
            [0.994173, 0.269148, 0.00106759],
            [0.839676, 0.100597, 0.460788],
        ],
        (2.47363, 4.18049, 0.394783),
    ),
    "resnet50": (
        [1.50292, 0.119638, 2.14659],
        [[1.81408, 1.06575, 0.304963], [4.87496, 2.01914, 0], [5.55618, 0.839621, 0]],
        [[3.82955, 0, 3.07814], [0.907139, 0, 0.961515], [1.33051, 0.760957, 0.822589]],
        [
            [0.0215193, 0.889131, 0.509827],
            [0.968369, 0.0151016, 0.867936],
            [0.989462, 0.443394, 0.9359],
        ],
        (2.65982, 1.25638, 0.629935),
    ),
    "inception_v3": (
        [1.33413, 0.569018, 1.11512],
        [[0.244843, 0, 1.67235], [0.722925, 0, 3.17021], [0, 0, 0.707393]],
        [[0.539957, 0.171161, 0.841177], [1.83527, 0.983324, 1.42881], [0.197598, 0, 0]],
        [
            [0.516681, 0.518937, 0.379764],
            [0.777966, 0.0875767, 0.0817176],
            [0.58827, 0.528211, 0.418973],
        ],
        (0.802148, 1.00609, 0.407525),
    ),
}


@pytest.mark.parametrize("network", EXPECTED)
def test_outputs_are_those_of_bas(network):
    model = bas.build_from(tensors_of(network))
    assert model.loaded_weights.startswith(f"{network} of BAS, ")
    image = np.random.default_rng(5).integers(0, 256, (1, 224, 224, 3)).astype(np.uint8)
    features = np.asarray(model.feature_extractor(image))
    out = {name: np.asarray(array) for name, array in model(image).items()}
    logits, *at_places, means = EXPECTED[network]
    np.testing.assert_allclose(out["logits"][0], logits, rtol=1e-4, atol=1e-5)
    maps = (features[..., [0, 5, 100]], out["score_map"], out["localization_map"])
    for array, expected in zip(maps, at_places, strict=True):
        step = 28 // array.shape[1]
        got = [array[0, down // step, right // step] for down, right in PLACES]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    got = [features.mean(), out["score_map"].mean(), out["localization_map"].mean()]
    np.testing.assert_allclose(got, means, rtol=1e-4)
