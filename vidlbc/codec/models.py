"""Model folders: how weights lie on disk, and what identifies them.

    MODEL/config.json                      {"format": 1, "temporal": "transformer"}   which kind by default
    MODEL/image_stage/{config.json,model.safetensors}
    MODEL/temporal/KIND/{config.json,model.safetensors}
    MODEL/video_decoder/{config.json,model.safetensors}   optional; decides pictures, no symbol and no byte
    MODEL/README.md                        the model card

The *coding tables* (gain, step and log2 gain of every QP and channel, multiples of 2^-12) are computed
once, when a stage is saved, and stored: they are part of the format, not recomputed by a decoder.
"""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.image_stage import ImageStage, build_image_stage
from vidlbc.codec.motion.stage import motion_options, start_from
from vidlbc.codec.prior.grid import as_integers, from_integers, to_grid
from vidlbc.codec.prior.topdown import NUM_QP, Gains
from vidlbc.codec.refinement.network import VideoDecoder
from vidlbc.codec.temporal_stage import KINDS, MOVED_KINDS, MovedStage, NoContext, TemporalStage
from vidlbc.errors import RETIRED, InputError
from vidlbc.run.plugins import named_class
from vidlbc.run.tensor_files import load_tensors, save_tensors

SHIPPED = Path(__file__).parents[1] / "weights"
FORMAT = 1
_TABLE_BITS = 12
_HALF_EXEMPT = ("prior.", "gains.", "coding.")


@dataclass(frozen=True)
class ImageModel:
    """An image stage with its coding tables: per level (3, 64, C), rows gain, step, log2 gain."""

    stage: ImageStage
    config: dict[str, Any]
    coding: tuple[Tensor, ...]
    digest: bytes

    def gains(self, qp: Tensor) -> list[Gains]:
        """Rows of the coding tables for a batch of QPs."""
        out = []
        for table in self.coding:
            out.append(Gains(*table[:, qp]))
        return out

    def to(self, device: torch.device) -> "ImageModel":
        return ImageModel(self.stage.to(device), self.config, tuple(t.to(device) for t in self.coding), self.digest)


def shipped() -> list[Path]:
    """The folders of the models that come with the package, by name."""
    return sorted(path.parent for path in SHIPPED.glob("*/config.json"))


def coding_tables(stage: ImageStage) -> list[Tensor]:
    """Gains of every QP as multiples of 2^-12, float32 (exact: at most 24 significant bits)."""
    unit = 2.0**_TABLE_BITS
    tables = []
    with torch.no_grad():
        for gains in stage.gains_at(torch.arange(NUM_QP, device=next(stage.parameters()).device)):
            log2_gain = gains.log2_gain.double()
            rows = torch.stack([torch.exp2(log2_gain), torch.exp2(-log2_gain), log2_gain])
            tables.append(((rows * unit).round().clamp(-(2**23), 2**23) / unit).float().cpu())
    return tables


def digest(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> bytes:
    """SHA-256 over the configuration and every tensor's name, type, shape and bytes."""
    sha = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous().cpu()
        sha.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        sha.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.dim() else tensor.numpy().tobytes())
    return sha.digest()


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n")


def _read_config(folder: Path, **required: type) -> dict[str, Any]:
    """`required`: keys that must be there, with their types. Raises InputError naming the file and the key."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder} is no model folder: {path} does not exist") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected a JSON object, got a {type(config).__name__}")
    if config.get("format") != FORMAT:
        raise InputError(f"{path}: model format {config.get('format')!r}, this version reads {FORMAT}")
    for key, kind in required.items():
        if not isinstance(config.get(key), kind):
            raise InputError(f"{path}: key {key!r} is {config.get(key)!r}, expected a {kind.__name__}")
    if not isinstance(config.get("options", {}), dict):
        raise InputError(f"{path}: key 'options' is {config['options']!r}, expected a dict")
    return config


def save_image_stage(
    stage: ImageStage, folder: Path, config: Mapping[str, Any], coding: Sequence[Tensor] | None = None
) -> None:
    """`config`: {"family": ..., "options": {...}}. Transforms are stored in float16, all that codes in float32.

    `coding`: the coding tables where they are to stay those of an older model; else they are computed from the gains.
    """
    _write_json(folder / "config.json", {"format": FORMAT, **config})
    tensors = {name: as_stored(name, tensor) for name, tensor in stage.state_dict().items()}
    tables = coding_tables(stage) if coding is None else [table.float().cpu() for table in coding]
    tensors |= {f"coding.{i}": table for i, table in enumerate(tables)}
    save_tensors(folder / "model.safetensors", tensors, {})


def as_stored(name: str, tensor: Tensor) -> Tensor:
    """A tensor of an image stage in the type of a model folder: float16 where it codes nothing."""
    return tensor.half() if tensor.is_floating_point() and not name.startswith(_HALF_EXEMPT) else tensor


def load_image_stage(folder: Path) -> ImageModel:
    """Raises InputError where the folder is no model or its tensors do not fit its config."""
    config = _read_config(folder, family=str)
    with _options_of(folder):
        stage = build_image_stage(config["family"], **config.get("options", {}))
    tensors, _ = load_tensors(folder / "model.safetensors")
    for index, level in enumerate(stage.levels):
        table = tensors.get(f"coding.{index}")
        if table is None or tuple(table.shape) != (3, NUM_QP, level.channels):
            found = "is missing" if table is None else f"has shape {tuple(table.shape)}"
            raise InputError(f"{folder}: coding table {index} {found}, expected {(3, NUM_QP, level.channels)}")
    # Copies: what safetensors loads is mapped, and would keep the file in use.
    coding = tuple(tensors[f"coding.{i}"].float().clone() for i in range(len(stage.levels)))
    _load_state(stage, {n: t.float() for n, t in tensors.items() if not n.startswith("coding.")}, folder)
    stage.eval().requires_grad_(False)
    return ImageModel(stage, config, coding, digest(tensors, config))


def stored_digest(folder: Path) -> bytes:
    """What `load_image_stage` would say, without building the stage. Raises InputError."""
    config = _read_config(folder, family=str)
    return digest(load_tensors(folder / "model.safetensors")[0], config)


def save_temporal(temporal: TemporalStage, folder: Path, config: Mapping[str, Any], image_digest: bytes) -> None:
    """`config`: {"kind": ..., "options": {...}}. Kinds that predict from moved pictures are stored as they decode, as
    integers; others in float32, as they always were."""
    image = image_digest.hex()
    moves = isinstance(temporal, MovedStage)
    state = as_integers(to_grid(copy.deepcopy(temporal).cpu())) if moves else temporal.state_dict()
    _write_json(folder / "config.json", {"format": FORMAT, "image_stage": image, **config})
    save_tensors(folder / "model.safetensors", state, {})


def build_temporal(kind: str, stage: ImageStage, **options: Any) -> TemporalStage:
    """A temporal stage on top of `stage`, its trunk set to the stage's intra prior; its networks for pictures, where
    the options hold those of `motion`, to the stage's transforms. Raises InputError.
    """
    built = temporal_class(kind, moves="motion" in options)
    prior = stage.prior
    try:
        temporal = built(stage.levels, list(prior.widths.values()), prior.block_count, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"temporal stage {kind!r}: {error}") from None
    temporal.trunk.load_state_dict(prior.state_dict())
    if isinstance(temporal, MovedStage):
        start_from(temporal.motion, stage)
    return temporal


def temporal_class(kind: str, moves: bool = False) -> type[TemporalStage]:
    """The class of a kind, or `package.module:Class`; `moves`: where frames are predicted from moved pictures.

    Raises InputError for an unknown one.
    """
    ours: Mapping[str, type[TemporalStage]] = MOVED_KINDS if moves else KINDS
    names = {name: f"{cls.__module__}:{cls.__name__}" for name, cls in ours.items()}
    return named_class("temporal stage", kind, names, TemporalStage)


def load_temporal(folder: Path, image: ImageModel, any_image: bool = False) -> tuple[TemporalStage, bytes]:
    """Raises InputError where it was trained for another image stage, unless `any_image`: then its weights will do, as
    long as that stage's levels are alike.
    """
    config = _read_config(folder, image_stage=str, kind=str)
    if config["kind"] == "chunk":
        raise InputError(f"{folder} was trained with {RETIRED}")
    if config["image_stage"] != image.digest.hex() and not any_image:
        raise InputError(
            f"{folder} was trained for image stage {config['image_stage'][:12]}, not {image.digest.hex()[:12]}"
        )
    tensors, _ = load_tensors(folder / "model.safetensors")
    with _options_of(folder):
        temporal = build_temporal(config["kind"], image.stage, **config.get("options", {}))
    _load_state(temporal, from_integers(tensors), folder)
    return temporal.eval().requires_grad_(False), digest(tensors, config)


def begin_temporal(folder: Path, kind: str, image: ImageModel, copies: bool) -> tuple[TemporalStage, dict[str, Any]]:
    """A stage of a kind, for training, set to what one in a folder has of it; and its options.

    That one may be of another image stage: then transforms of pictures are the new one's own. It may be of another kind
    where both predict from moved pictures: what both have is taken. `copies`: its blocks may be copied, and overlap;
    where none are, its distributions are those of a stage without. Raises InputError where nothing can be taken.
    """
    theirs, _ = load_temporal(folder, image, any_image=True)
    config = _read_config(folder, image_stage=str, kind=str)
    options = dict(config.get("options", {}))
    if "motion" not in options and config["kind"] == kind:
        return theirs, options
    same = config["image_stage"] == image.digest.hex()
    given = options.get("motion")
    motion = given if same else motion_options(image.stage)
    if given is None or motion is None:
        raise InputError(f"{folder}: of kind {config['kind']}, on {image.stage.family}: no {kind} can begin with it")
    copies = copies or bool(given.get("copies"))
    motion = {**given, **motion, "copies": copies, "overlap": copies}
    options = {**(options if config["kind"] == kind else {}), "motion": motion}
    temporal, tensors = build_temporal(kind, image.stage, **options), theirs.state_dict()
    assert isinstance(temporal, MovedStage)
    own = temporal.motion.synthesis.own
    kept = set() if same else {id(p) for module in (*own, temporal.motion.analysis) for p in module.parameters()}
    for name, parameter in temporal.named_parameters():
        if name not in tensors or id(parameter) in kept:
            continue
        tensor = tensors[name]
        if tensor.ndim == 2 and tensor.shape[1] + 1 == parameter.shape[1]:
            tensor = F.pad(tensor, (0, 1))  # what is copied of a cell comes in last
        if tensor.shape == parameter.shape:
            parameter.data.copy_(tensor)
        elif config["kind"] == kind:
            raise InputError(f"{folder}: tensor {name!r} does not fit image stage {image.stage.family}")
    return temporal.eval().requires_grad_(False), options


def predicts_from_pictures(folder: Path) -> bool:
    """Whether a folder holds a temporal stage, and one with motion. Raises InputError for a damaged one."""
    return folder.is_dir() and "motion" in _read_config(folder).get("options", {})


def no_context(image: ImageModel) -> tuple[TemporalStage, bytes]:
    """Kind `none`: the image stage's own intra prior."""
    temporal = build_temporal(NoContext.kind, image.stage)
    return temporal.eval().requires_grad_(False), b""


def save_video_decoder(decoder: VideoDecoder, folder: Path, options: Mapping[str, Any], image_digest: bytes) -> None:
    """Stored in float16, as the synthesis that it follows. `options`: what `build_video_decoder` was given."""
    _write_json(folder / "config.json", {"format": FORMAT, "image_stage": image_digest.hex(), "options": dict(options)})
    save_tensors(folder / "model.safetensors", {n: t.half() for n, t in decoder.state_dict().items()}, {})


def build_video_decoder(stage: ImageStage, **options: Any) -> VideoDecoder:
    """Untrained: it gives back the image stage's own pictures. Raises InputError for options that it does not have."""
    try:
        return VideoDecoder(stage.feature_channels, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"video decoder: {error}") from None


def load_video_decoder(model: Path, image: ImageModel) -> tuple[VideoDecoder, bytes]:
    """Of a model folder. Raises InputError where it has none, or one that was trained for another image stage."""
    folder = model / "video_decoder"
    if not folder.is_dir():
        raise InputError(
            f"model {model} has no video decoder: use refine=false, or train one with tools/pretrain_decoder.py"
        )
    config = _read_config(folder, image_stage=str)
    if config["image_stage"] != image.digest.hex():
        raise InputError(
            f"{folder} was trained for image stage {config['image_stage'][:12]}, not {image.digest.hex()[:12]}"
        )
    tensors, _ = load_tensors(folder / "model.safetensors")
    with _options_of(folder):
        decoder = build_video_decoder(image.stage, **config.get("options", {}))
    _load_state(decoder, {name: tensor.float() for name, tensor in tensors.items()}, folder)
    return decoder.eval().requires_grad_(False), digest(tensors, config)


def find_model(name: str) -> Path:
    """A folder, or the name of a shipped model. Raises InputError naming the choices."""
    ours = SHIPPED / name
    if ours.is_dir():
        return ours
    if Path(name).is_dir():
        return Path(name)
    names = [folder.name for folder in shipped()]
    raise InputError(f"no model {name!r}: expected a model folder or one of {', '.join(names) or '(none shipped)'}")


def kinds_of(folder: Path) -> list[str]:
    """What `temporal` may be for a model folder: none, and the stages that it has."""
    return ["none", *sorted(path.name for path in (folder / "temporal").glob("*") if path.is_dir())]


def default_kind(folder: Path) -> str:
    return str(_read_config(folder).get("temporal", NoContext.kind))


@contextmanager
def _options_of(folder: Path) -> Iterator[None]:
    """What goes wrong while a network is built from a config is the config's fault."""
    try:
        yield
    except (InputError, TypeError, ValueError, RuntimeError, KeyError, ZeroDivisionError, MemoryError) as error:
        raise InputError(f"{folder / 'config.json'}: no network can be built from it ({error})") from None


def _load_state(module: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    missing, unexpected = set(module.state_dict()) - set(tensors), set(tensors) - set(module.state_dict())
    if missing or unexpected:
        name = sorted(missing | unexpected)[0]
        raise InputError(f"{folder}: the weights do not fit the config (first mismatch: tensor {name!r})")
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise InputError(
            f"{folder}: the weights do not fit the config ({str(error).splitlines()[-1].strip()})"
        ) from None
