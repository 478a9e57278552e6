"""CompressAI's hyperprior, mean-scale and ELIC models as image stages: their transforms, our symbols and priors.

    frame --g_a--> y (stride 16) --h_a--> z (stride 64)           levels, fine to coarse: y, z
    frame <--g_s-- y^                                             z only informs the prior of y, as a hyper-latent does

What comes from CompressAI is g_a, g_s and h_a, built from its own classes, so that its checkpoints fit. Its entropy
model does not come along: the exact top-down prior (vidlbc.codec.prior) takes its place, which codes z first and y
given z, decodes alike on every device, and has to be trained on top of the transforms.

    hyperprior   Balle et al., arXiv 1802.01436 (`bmshj2018-hyperprior`, mean=False) and Minnen et al., arXiv 1809.02736
                 (`mbt2018-mean`, mean=True); the codec of Codevilla et al., arXiv 2111.02249, has this form
    elic         He et al., arXiv 2203.10886 (`elic2022-official`); de Andrade and Bajic, arXiv 2405.10244, use it
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from vidlbc.codec.image_stage.base import ImageStage, qp_lambda
from vidlbc.codec.prior.topdown import NUM_QP, Level
from vidlbc.errors import InputError

Y_STRIDE, Z_STRIDE = 16, 64
# lambda of CompressAI's quality 1 to 8 (its README, "training"); a checkpoint's step of 1 belongs to its lambda.
QUALITY_LAMBDA = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800)


def import_compressai() -> Any:
    """The package with its `models` and `zoo`, imported without the warnings that its import sets off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import compressai.entropy_models
        import compressai.models.sensetime
        import compressai.zoo.pretrained
    return compressai


class CompressAIStage(ImageStage):
    """Common to the families: levels y and z, analysis and synthesis through g_a, g_s, h_a."""

    synthesis_modules = ("g_s",)

    def __init__(
        self,
        transforms: Sequence[nn.Module],
        N: int,
        M: int,
        prior_widths: Sequence[int],
        prior_blocks: int,
        trained_lambda: float,
    ) -> None:
        # Latents reach to about 100; those of step 1 stay exact on the priors' grid.
        levels = [Level(Y_STRIDE, M, view_bits=3), Level(Z_STRIDE, N, view_bits=3)]
        super().__init__(levels, prior_widths, prior_blocks)
        self.g_a, self.g_s, self.h_a = transforms
        anchors = qp_lambda(torch.linspace(0, NUM_QP, NUM_QP // 8 + 1))
        y_gain, z_gain = (gains.log2_gain for gains in self.gains)
        assert isinstance(y_gain, Tensor) and isinstance(z_gain, Tensor)
        with torch.no_grad():
            # Distortion at high rate goes with step^2 and the best step with 1 / sqrt(lambda): the step is 1 at the QP
            # whose lambda is the one trained for. z is side information of one precision, as in CompressAI.
            y_gain.copy_(0.5 * (anchors / trained_lambda).log2()[:, None].expand(-1, M))
            z_gain.zero_()

    def analysis(self, x: Tensor) -> list[Tensor]:
        y = self.g_a(x)
        return [y, self.hyper_analysis(y)]

    def hyper_analysis(self, y: Tensor) -> Tensor:
        """y (B, M, H/16, W/16) -> z (B, N, H/64, W/64)."""
        return self.h_a(y)

    def synthesis(self, latents: Sequence[Tensor], qp: Tensor) -> Tensor:
        return self.g_s(latents[0])

    @staticmethod
    def sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
        """N and M of a checkpoint's transforms."""
        raise NotImplementedError

    @classmethod
    def from_checkpoint(cls, path: str | Path, **options: Any) -> tuple[Self, dict[str, Any]]:
        """The stage with the transforms of a local CompressAI checkpoint, and the options that rebuild it.

        Its prior is untrained. Raises InputError where the file is no checkpoint of this family.
        """
        state = read_checkpoint(Path(path))
        try:
            options = {**options, **cls.sizes(state)}
        except KeyError as error:
            raise InputError(f"{path}: no {cls.family} checkpoint: it has no tensor {error.args[0]!r}") from None
        stage = cls(**options)
        for name in ("g_a", "g_s", "h_a"):
            wanted = getattr(stage, name).state_dict()
            found = {key: state[full] for key in wanted if (full := _locate(state, name, key)) is not None}
            for key, tensor in wanted.items():
                if key not in found:
                    raise InputError(f"{path}: no {cls.family} checkpoint: it has no tensor '{name}.{key}'")
                if found[key].shape != tensor.shape:
                    shapes = f"{tuple(found[key].shape)}, expected {tuple(tensor.shape)}"
                    raise InputError(f"{path}: no {cls.family} checkpoint: tensor '{name}.{key}' is {shapes}")
            getattr(stage, name).load_state_dict(found)
        return stage, options


class Hyperprior(CompressAIStage):
    """`mean=True`: mean-scale hyperprior (h_a reads y); `mean=False`: scale hyperprior (h_a reads |y|)."""

    family = "hyperprior"

    def __init__(
        self,
        N: int = 128,
        M: int = 192,
        mean: bool = True,
        prior_widths: Sequence[int] = (192, 128),
        prior_blocks: int = 2,
        trained_lambda: float = QUALITY_LAMBDA[3],
    ) -> None:
        """N, M: channels of z and y (CompressAI's names); `prior_widths` for working strides 16 and 64."""
        models = import_compressai().models
        model = (models.MeanScaleHyperprior if mean else models.ScaleHyperprior)(N, M)
        super().__init__((model.g_a, model.g_s, model.h_a), N, M, prior_widths, prior_blocks, trained_lambda)
        self.mean = mean

    def hyper_analysis(self, y: Tensor) -> Tensor:
        return self.h_a(y if self.mean else y.abs())

    @staticmethod
    def sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
        return {"N": state["g_a.0.weight"].shape[0], "M": state["g_a.6.weight"].shape[0]}


class ELIC(CompressAIStage):
    """ELIC's residual bottleneck transforms with attention."""

    family = "elic"

    def __init__(
        self,
        N: int = 192,
        M: int = 320,
        prior_widths: Sequence[int] = (256, 128),
        prior_blocks: int = 2,
        trained_lambda: float = QUALITY_LAMBDA[3],
    ) -> None:
        """N, M: channels of z and y; M at least 129, for CompressAI splits off 16, 16, 32 and 64 of them."""
        model = import_compressai().models.sensetime.Elic2022Official(N, M)
        transforms = (model.g_a, model.g_s, model.latent_codec["hyper"].h_a)
        super().__init__(transforms, N, M, prior_widths, prior_blocks, trained_lambda)

    @staticmethod
    def sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
        return {"N": state["g_a.0.weight"].shape[0], "M": state["g_a.13.weight"].shape[0]}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors of a local checkpoint: safetensors, or CompressAI's `.pth.tar`, old parameter names renamed.

    A `.pth.tar` is read by torch's restricted loader, which builds tensors and nothing else. Raises InputError.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file (expected a CompressAI checkpoint)")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every library has its own; the reason is passed on
        raise InputError(f"{path}: cannot be read as a checkpoint ({str(error).splitlines()[0][:120]})") from error
    for key in ("state_dict", "model", "model_state_dict"):  # what training scripts wrap it in
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise InputError(f"{path}: holds no tensors by name (expected a CompressAI checkpoint)")
    plain = {str(name).removeprefix("module."): tensor for name, tensor in state.items()}
    return dict(import_compressai().zoo.pretrained.load_pretrained(plain))


def _locate(state: Mapping[str, Tensor], module: str, key: str) -> str | None:
    """A tensor's name in the checkpoint; models made of latent codecs keep h_a deeper."""
    for prefix in (f"{module}.", f"latent_codec.hyper.{module}.", f"latent_codec.y.hyper.{module}."):
        if prefix + key in state:
            return prefix + key
    return None


def quality_to_lambda(quality: int) -> float:
    """lambda of a CompressAI quality, 1 to 8. Raises InputError outside."""
    if not 1 <= quality <= len(QUALITY_LAMBDA):
        raise InputError(f"quality={quality}: expected 1 to {len(QUALITY_LAMBDA)}")
    return QUALITY_LAMBDA[quality - 1]
