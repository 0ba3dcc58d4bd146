"""Public architectures from their papers: counted as published, inspected, pruned to half."""

import dataclasses
import decimal
import functools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import prunable
import pytest
from public_models import (
    convnext,
    dcgan,
    densenet,
    mobile,
    patches,
    plain,
    resnet,
    shufflenet,
    unet,
)

from rice_jax import inspection, profile, prune
from rice_jax.graph.trace import variable_shapes
from rice_jax.prune import surgery

IMAGENET, CIFAR, TINY = (1, 224, 224, 3), (1, 32, 32, 3), (2, 16, 16, 3)


@dataclasses.dataclass(frozen=True)
class Public:
    """An architecture at its published size and at one that tests have time for."""

    source: str
    """Of the architecture; then of the figures. torchvision: 'num_params' and '_ops' in the
    documentation of the weights, the latter in 1e9 multiply-adds of convolutions and products."""
    params: str
    """As published, in millions."""
    multiply_adds: str
    """As published, in 1e9; '' where no figure was published."""
    whole: nn.Module
    image: tuple[int, ...]
    small: nn.Module
    batch: tuple[int, ...]
    silent: tuple[str, ...]
    """Layers whose parameters at index 0 make the first one's map 0 where they are 0."""
    kept_whole: tuple[str, ...] = ()
    """What rightly forbids to cut some layers: patterns of `kept_whole`'s lines."""


BOTTLENECK = functools.partial(resnet.ResNet, block=resnet.Bottleneck)
GROUPED = functools.partial(resnet.Bottleneck, groups=32, group_width=4)
NARROW = functools.partial(resnet.Bottleneck, groups=4, group_width=16)
STEM = ("stem", "stem_norm")
FIRST = ("Conv_0", "BatchNorm_0")

PUBLIC = {
    "ResNet-18": Public(
        "He et al. 2015, arXiv:1512.03385 (1.8); torchvision",
        params="11.689512",
        multiply_adds="1.814",
        whole=resnet.ResNet((2, 2, 2, 2)),
        image=IMAGENET,
        small=resnet.ResNet((1, 1), width=8, classes=3),
        batch=TINY,
        silent=STEM,
    ),
    "ResNet-50": Public(  # the paper's 3.8 has its stride in the 1 x 1 convolution
        "He et al. 2015, arXiv:1512.03385; torchvision",
        params="25.557032",
        multiply_adds="4.089",
        whole=BOTTLENECK((3, 4, 6, 3)),
        image=IMAGENET,
        small=BOTTLENECK((1, 1), width=4, classes=3),
        batch=TINY,
        silent=STEM,
    ),
    "ResNeXt-50": Public(
        "Xie et al. 2016, arXiv:1611.05431 (25.0, 4.2); torchvision",
        params="25.028904",
        multiply_adds="4.23",
        whole=resnet.ResNet((3, 4, 6, 3), GROUPED),
        image=IMAGENET,
        small=resnet.ResNet((1, 1), NARROW, width=8, classes=3),
        batch=TINY,
        silent=STEM,
    ),
    "WRN-28-10": Public(
        "Zagoruyko and Komodakis 2016, arXiv:1605.07146; multiply-adds: osmr/imgclsmob",
        params="36.5",
        multiply_adds="5.2",
        whole=resnet.WideResNet(),
        image=CIFAR,
        small=resnet.WideResNet(depth=10, widen=2, base=4),
        batch=(2, 8, 8, 3),
        silent=("conv1",),
    ),
    "VGG16": Public(
        "Simonyan and Zisserman 2014, arXiv:1409.1556 (138); torchvision",
        params="138.357544",
        multiply_adds="15.47",
        whole=plain.VGG(),
        image=IMAGENET,
        small=plain.VGG(((4, 4), (6,)), dense=8, classes=3),
        batch=TINY,
        silent=FIRST[:1],
    ),
    "SqueezeNet 1.1": Public(
        "Iandola et al. 2016, arXiv:1602.07360; torchvision",
        params="1.235496",
        multiply_adds="0.349",
        whole=plain.SqueezeNet(),
        image=IMAGENET,
        small=plain.SqueezeNet(fires=((2, 4), (3, 4), (2, 6)), stem=6, classes=3),
        batch=(2, 32, 32, 3),
        silent=FIRST[:1],
    ),
    "DenseNet-121": Public(
        "Huang et al. 2016, arXiv:1608.06993; torchvision",
        params="7.978856",
        multiply_adds="2.834",
        whole=densenet.DenseNet(),
        image=IMAGENET,
        small=densenet.DenseNet((2, 1), growth=4, classes=3),
        batch=TINY,
        silent=FIRST,
    ),
    "MobileNetV2": Public(
        "Sandler et al. 2018, arXiv:1801.04381 (3.4, 0.300); torchvision",
        params="3.504872",
        multiply_adds="0.301",
        whole=mobile.MobileNetV2(),
        image=IMAGENET,
        small=mobile.MobileNetV2(((1, 4, 1, 1), (6, 6, 2, 2)), stem=8, last=16, classes=3),
        batch=TINY,
        silent=FIRST,
    ),
    "MobileNetV3 Large": Public(
        "Howard et al. 2019, arXiv:1905.02244 (5.4, 0.219); torchvision",
        params="5.483032",
        multiply_adds="0.217",
        whole=mobile.MobileNetV3(),
        image=IMAGENET,
        small=mobile.MobileNetV3(
            ((3, 16, 8, 1, 0, 2), (5, 24, 8, 1, 1, 1)), stem=8, last=16, classes=3
        ),
        batch=TINY,
        silent=FIRST,
    ),
    "EfficientNet-B0": Public(
        "Tan and Le 2019, arXiv:1905.11946 (5.3, 0.39); torchvision",
        params="5.288548",
        multiply_adds="0.386",
        whole=mobile.EfficientNet(),
        image=IMAGENET,
        small=mobile.EfficientNet(((1, 8, 1, 1, 3), (6, 8, 1, 1, 5)), stem=8, last=16, classes=3),
        batch=TINY,
        silent=FIRST,
    ),
    "ShuffleNetV2 x1.0": Public(
        "Ma et al. 2018, arXiv:1807.11164 (0.146); torchvision",
        params="2.278604",
        multiply_adds="0.145",
        whole=shufflenet.ShuffleNetV2(),
        image=IMAGENET,
        small=shufflenet.ShuffleNetV2((8,), (2,), stem=6, last=12, classes=3),
        batch=TINY,
        silent=("stem", "stem_bn"),
    ),
    "ConvNeXt-T": Public(
        "Liu et al. 2022, arXiv:2201.03545 (29, 4.5); torchvision",
        params="28.589128",
        multiply_adds="4.456",
        whole=convnext.ConvNeXt(),
        image=IMAGENET,
        small=convnext.ConvNeXt((1, 1), (16, 24), classes=3),
        batch=TINY,
        silent=("stem",),
        kept_whole=("reduce_sum in (Block_1/)?LayerNorm_0 is",),
    ),
    "UNet": Public(  # no figure in the paper; that of its layers, as many reports give it
        "Ronneberger et al. 2015, arXiv:1505.04597",
        params="31.030658",
        multiply_adds="",
        whole=unet.UNet(),
        image=(1, 572, 572, 1),
        small=unet.UNet(width=4, depth=1),
        batch=(2, 20, 20, 1),
        silent=("down_0/conv1",),
    ),
    "ViT-S/16": Public(  # multiply-adds: Liu et al. 2021, arXiv:2103.14030, for DeiT-S
        "Dosovitskiy et al. 2020, arXiv:2010.11929; Touvron et al. 2020, arXiv:2012.12877; timm",
        params="22.050664",
        multiply_adds="4.6",
        whole=patches.ViT(),
        image=IMAGENET,
        small=patches.ViT(patch=4, width=16, depth=2, heads=2, classes=3),
        batch=(2, 8, 8, 3),
        silent=("embed",),
        kept_whole=(
            "reduce_sum in blocks_0/norm1 is",
            "dot_general in blocks_./attention/(query|key|value) makes several axes at once",
        ),
    ),
    "Mixer-S/16": Public(
        "Tolstikhin et al. 2021, arXiv:2105.01601 (18); parameters by hand from its table 1",
        params="18.528264",
        multiply_adds="",
        whole=patches.Mixer(),
        image=IMAGENET,
        small=patches.Mixer(patch=4, width=8, depth=1, tokens=16, channels=32, classes=3),
        batch=TINY,
        silent=("stem",),
        kept_whole=(
            "reduce_sum in MixerBlock_0/LayerNorm_0 is",
            "token_mixing/Dense_1: add in MixerBlock_0 ties it",  # a unit for each patch
        ),
    ),
    "DCGAN generator": Public(
        "Radford et al. 2015, arXiv:1511.06434; the parameters of PyTorch's tutorial",
        params="3.576704",
        multiply_adds="",
        whole=dcgan.Generator(),
        image=(1, 100),
        small=dcgan.Generator(width=4),
        batch=(2, 10),
        silent=("up0", "bn1"),
    ),
}


def agrees(count, published, unit):
    """Whether a count is a published figure, as precisely as that was published."""
    figure = decimal.Decimal(published)
    half = decimal.Decimal(5).scaleb(figure.as_tuple().exponent - 1)
    return abs(decimal.Decimal(count) / unit - figure) <= half


def multiply_adds(module, shape):
    """Of convolutions, dense layers and attention, by the shapes that each layer is called with."""
    total = 0

    def add(call, args, kwargs, context):
        nonlocal total
        y, layer = call(*args, **kwargs), context.module
        if context.method_name != "__call__":
            return y
        if isinstance(layer, nn.Conv | nn.ConvTranspose | nn.Dense | nn.DenseGeneral):
            x, kernel = args[0], layer.variables["params"]["kernel"]
            joined = isinstance(layer, nn.DenseGeneral) and layer.axis != -1
            every = y if isinstance(layer, nn.Conv) or joined else x
            total += kernel.size * math.prod(every.shape[:-1])
        elif isinstance(layer, nn.MultiHeadDotProductAttention):  # scores, then sums of values
            images, tokens, width = y.shape
            total += 2 * images * tokens**2 * width
        return y

    with nn.intercept_methods(add):
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        jax.eval_shape(lambda x: module.init(jax.random.key(0), x), x)
    return total


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.one_in(8)
def test_a_count_is_the_published_one(name):
    public = PUBLIC[name]
    counted = profile.count(public.whole, public.image, batched=True)
    assert counted.uncounted == ()
    assert counted.not_called == ()
    assert agrees(counted.params, public.params, 10**6)
    assert counted.flops.formula == 2 * multiply_adds(public.whole, public.image)
    if public.multiply_adds:
        assert agrees(counted.flops.formula // 2, public.multiply_adds, 10**9)


def masked(module, variables, x, removed):
    """The net with filters taken out by hand: NaN wherever they lead, 0 where they are summed."""

    def take_out(call, args, kwargs, context):
        if isinstance(context.module, nn.Conv | nn.ConvTranspose | nn.Dense):
            args = (jnp.where(jnp.isnan(args[0]), 0, args[0]), *args[1:])
        y, gone = call(*args, **kwargs), removed.get("/".join(context.module.path))
        return y.at[..., np.asarray(gone)].set(jnp.nan) if gone else y

    with nn.intercept_methods(take_out):
        return jax.jit(module.apply)(variables, x)


def some_channels(graph, seed):
    """Three of ten channels at random, and of no group all."""
    rng = np.random.default_rng(seed)
    gone = rng.random(graph.channels) < 0.3
    for group in range(graph.groups):
        gone[rng.choice(np.flatnonzero(graph.group == group))] = False
    return gone


@pytest.fixture(params=PUBLIC)
def small(request):
    public = PUBLIC[request.param]
    variables = prunable.random_variables(variable_shapes(public.small, public.batch), 1)
    images = np.random.default_rng(2).random(public.batch, np.float32)
    return public, variables, images


class TestSmall:
    @pytest.mark.one_in(4)
    def test_a_dead_filter_is_found(self, small):
        public, variables, images = small
        for path in public.silent:
            layer = functools.reduce(dict.get, path.split("/"), variables["params"])
            for array in layer.values():
                array[..., 0] = 0
        found = inspection.census(public.small, variables, [(images, np.ones(len(images)))])
        assert 0 in found.layers[public.silent[0]].dead

    @pytest.mark.one_in(16)
    def test_half_of_it_and_less_computes_what_the_whole_net_does_without_those_filters(
        self, small
    ):
        """To half of its FLOPs first, then what is left without channels at random."""
        public, variables, images = small
        whole = prune.totals(public.small, public.batch, batched=True)["formula"]
        half = prune.prune(
            public.small,
            variables,
            [(images, np.zeros(len(images), int))],
            budgets={"formula": whole // 2},
            criterion="l1",
            on_unknown="keep",
        )
        assert half.after["formula"] <= whole // 2
        for line in half.kept_whole:
            assert any(re.search(pattern, line) for pattern in public.kept_whole), line
        self.check(public, variables, images, half, half.removed)

        graph = prune.dependencies(half.module, public.batch, batched=True, on_unknown="keep")
        less = surgery.remove(half.module, half.variables, graph, some_channels(graph, 3))
        removed = dict(half.removed)
        for path, indices in less.removed.items():
            gone = removed.get(path, ())
            filters = len(indices) + len(less.kept[path]) + len(gone)
            left = [index for index in range(filters) if index not in gone]
            removed[path] = [*gone, *(left[index] for index in indices)]
        assert less.removed
        self.check(public, variables, images, less, removed)

    def check(self, public, variables, images, pruned, removed):
        got = jax.jit(pruned.module.apply)(pruned.variables, images)
        wanted = masked(public.small, variables, images, removed)
        assert np.ptp(wanted) > 0
        error = np.max(np.abs(got - wanted)) / np.max(np.abs(wanted))
        assert error <= 1e-5
