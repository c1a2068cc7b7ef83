"""What the diffusion engine needs on a 24 GB GPU: `python -m bench.gpu [--root FOLDER] [--only PART ...]`.

Full-size architectures with random weights, because neither memory nor time depends on the values; every part runs
in a process of its own, the engine under a hard cap, through the project's own engine and pipeline. The reference
job is a request with default fields and text. Needs about 52 GB for models (`--root`, best in memory: /dev/shm).
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

GIB = 2**30
CAP_GB = 22.0
"""What a card of 24 GB has at most for the process; torch refuses more."""
BUDGET_GB = 21.0
"""What the engine is told to use."""
ROOT = Path(__file__).parents[1]
JOB_ID = "00000000-0000-7000-8000-000000000000"
ROLES = ("flux", "sdxl", "controlnet", "segmentation")
VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 16, "sample_size": 1024,
    "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip
CLIP = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "max_position_embeddings": 77, "vocab_size": 49408, "projection_dim": 768, "hidden_act": "quick_gelu",
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip
CONTROLNET = {
    "in_channels": 4, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20], "cross_attention_dim": 2048,
    "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "transformer": {
        "patch_size": 1, "in_channels": 64, "num_layers": 19, "num_single_layers": 38, "attention_head_dim": 128,
        "num_attention_heads": 24, "joint_attention_dim": 4096, "pooled_projection_dim": 768,
        "guidance_embeds": True, "axes_dims_rope": [16, 56, 56],
    },
    "t5": {
        "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24, "num_decoder_layers": 24,
        "vocab_size": 32128, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "dropout_rate": 0.0,
    },
    "clip_l": CLIP,
    "sdxl_clip_l": CLIP,
    "sdxl_clip_g": CLIP | {
        "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
        "projection_dim": 1280, "hidden_act": "gelu",
    },
    "flux_vae": VAE,
    "sdxl_vae": VAE | {
        "latent_channels": 4, "scaling_factor": 0.13025, "shift_factor": None, "use_quant_conv": True,
        "use_post_quant_conv": True,
    },
    "unet": CONTROLNET | {
        "sample_size": 128, "out_channels": 4, "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    },
    "controlnet": CONTROLNET,
    "birefnet": {},
}  # fmt: skip
SCHEDULERS = {
    "flux_scheduler": {
        "_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True, "shift": 3.0,
        "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096,
    },
    "sdxl_scheduler": {
        "_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "timestep_spacing": "leading", "steps_offset": 1,
    },
}  # fmt: skip


def settings_of(root: Path, preset: str, **more: Any) -> Any:
    """The settings of a part: offline, under the cap, models in `root`."""
    from ad_agent_mcp.config import Settings

    overrides = {f"{role}_model": str(_source(root, role)) for role in ROLES}
    return Settings(
        data_dir=root / "data", engine="diffusion", preset=preset, models_dir=root / "models", offline=True,
        vram_budget_gb=BUDGET_GB, **(overrides | more),
    )  # fmt: skip


def _source(root: Path, role: str) -> Path:
    return root / "sources" / role


def _config(name: str) -> Mapping[str, Any]:
    return CONFIGS["transformer" if name.startswith("transformer") or name == "modulation" else name]


# models


def build(root: Path) -> dict[str, float]:
    """Full-size prepared models with random weights, written as `models prepare` would, and their size in GB."""
    import torch

    from ad_agent_mcp.engines.diffusion import prepare
    from ad_agent_mcp.engines.diffusion.flat import write_flat
    from ad_agent_mcp.engines.diffusion.networks import empty_network, weights_of
    from ad_agent_mcp.models.catalog import PRESETS
    from ad_agent_mcp.models.library import FORMAT, ModelLibrary
    from tests.engines.tiny_models import clip_tokenizer, t5_tokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes: dict[str, float] = {}
    for role in ROLES:
        _source(root, role).mkdir(parents=True, exist_ok=True)

    class Random:
        """Weights that keep a signal's size, made when they are asked for."""

        def __init__(self, wanted: Mapping[str, Any]) -> None:
            self._shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}

        def shape(self, name: str) -> tuple[int, ...]:
            return self._shapes[name]

        def read(self, name: str) -> torch.Tensor:
            shape = self._shapes[name]
            if len(shape) < 2:
                value = 0.0 if name.endswith(("bias", "mean")) else 1.0
                return torch.full(shape, value, dtype=torch.bfloat16)
            fan_in = math.prod(shape[1:])
            return torch.randn(shape, device=device, dtype=torch.bfloat16).mul_(fan_in**-0.5)

    for preset in (PRESETS["exact"], PRESETS["fast"]):
        library = ModelLibrary(settings_of(root, preset.name))
        for component in preset.components:
            location = library.locate(preset, component.role)
            folder = location.prepared / component.name
            if component.name in library.manifest(location):
                continue
            folder.mkdir(parents=True)
            if component.network:
                config = _config(component.name)
                (folder / "config.json").write_text(json.dumps(config))
                wanted = weights_of(empty_network(component, config))
                source: Any = Random(wanted)
                for name, entries in prepare._segments(component, wanted, source).items():
                    write_flat(folder / f"{name}.safetensors", entries)
            elif component.name in SCHEDULERS:
                (folder / "scheduler_config.json").write_text(json.dumps(SCHEDULERS[component.name]))
            else:
                t5 = component.name == "flux_tokenizer_2"
                (t5_tokenizer() if t5 else clip_tokenizer(folder)).save_pretrained(folder)
            files = {path.name: path.stat().st_size for path in folder.iterdir()}
            sizes[component.name] = round(sum(files.values()) / 1e9, 2)
            library.record(location, component.name, {"format": FORMAT, "files": files, "sources": {}})
    return sizes


# one job, watched


class Watch:
    """The events of one job with their times: implements `JobEvents` and `StageReport`."""

    def __init__(self) -> None:
        self.stage = ""
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, tuple[float, float]] = {}
        self.predicted: dict[str, float] = {}
        self.steps: dict[str, list[float]] = {}
        self.moves: list[tuple[str, str, int, float]] = []
        self.notices: list[str] = []
        self.at_step: Callable[[str, int], None] = lambda stage, done: None

    def open_stage(self, stage: str) -> "Watch":
        self.stage = str(stage)
        return self

    def iteration(self, done: int, total: int) -> None:
        self.steps.setdefault(self.stage, []).append(time.perf_counter())
        self.at_step(self.stage, done)

    def notice(self, code: str, text: object) -> None:
        self.notices.append(f"{code}: {text}")

    def model_moved(self, model: str, state: str, *, size_bytes: int = 0, seconds: float = 0.0) -> None:
        if state != "loading":
            self.moves.append((model, state, size_bytes, seconds))

    def step_finished(self, step: int, files: dict[str, str], size: tuple[int, int]) -> None:
        pass

    def step_s(self, stage: str) -> float:
        """Median seconds of an iteration, the first two left out."""
        times = self.steps[stage]
        return statistics.median(b - a for a, b in pairwise(times[2:]))


def watched(engine: Any, root: Path, watch: Watch, scene: str = "", **fields: Any) -> float:
    """Run the reference job; seconds that the engine spent, all its stages together. `watch` learns the rest.

    A `scene` of its own keeps a job from finding its prompts on disk.
    """
    import torch

    from ad_agent_mcp.contract.call import GenerateRequest
    from ad_agent_mcp.contract.messages import Inputs, StartJob
    from ad_agent_mcp.contract.stages import Stage
    from ad_agent_mcp.engines.diffusion.info import describe
    from ad_agent_mcp.pipeline.run import run_job

    request = GenerateRequest(
        product_image="product.png", text_content="봄을 담은\n첫 번째 세럼", bg_prompt=f"a wooden table in a cafe {scene}",
        text_model_prompt=f"gold foil balloons {scene}",
        font_name="BMJua/BMJUA_ttf.ttf", seed=1, **fields,
    )  # fmt: skip
    steps = {Stage.BACKGROUND: 28, Stage.REFINE: 17, Stage.TEXT_PAINT: 28, Stage.BLEND: 12}
    plan = describe(engine._preset, CONFIGS["transformer"]).plan((1, 2, 3), steps)
    out = root / "job"
    out.mkdir(exist_ok=True)
    run = engine._residency.run

    def timed(stage: str, *arguments: Any, **named: Any) -> Any:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        made = run(stage, *arguments, **named)
        torch.cuda.synchronize()
        watch.seconds[str(stage)] = watch.seconds.get(str(stage), 0.0) + time.perf_counter() - begin
        watch.peaks[str(stage)] = torch.cuda.max_memory_allocated() / GIB, torch.cuda.max_memory_reserved() / GIB
        return made

    use = engine._residency.use

    @contextmanager
    def weighed(stage: str, report: Any) -> Iterator[None]:
        with use(stage, report):
            needs = {str(one.stage): one.workspace_bytes for one in engine._residency._schedule.uses}[str(stage)]
            torch.cuda.reset_peak_memory_stats()  # what leaves for this stage was not its own
            watch.predicted[str(stage)] = (engine._residency.resident_bytes + needs) / GIB
            yield

    engine._residency.run, engine._residency.use = timed, weighed
    inputs = Inputs(product=ROOT / "examples" / "product.png")
    try:
        run_job(StartJob(job_id=JOB_ID, request=request, plan=plan, inputs=inputs, out_dir=out), engine, watch)
    finally:
        del engine._residency.run, engine._residency.use
    return sum(watch.seconds.values())


# the parts, each in its own process


def part_ceiling(root: Path) -> dict[str, Any]:
    """What pinned memory copies to the device per second, and a step of plain eager FLUX without the cap."""
    import torch
    from diffusers import FluxTransformer2DModel

    host, device = torch.empty(2 * GIB, dtype=torch.uint8), torch.empty(2 * GIB, dtype=torch.uint8, device="cuda")
    host.fill_(1)
    assert int(torch.cuda.cudart().cudaHostRegister(host.data_ptr(), host.numel(), 0)) == 0
    rates = []
    for _ in range(5):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        device.copy_(host, non_blocking=True)
        torch.cuda.synchronize()
        rates.append(host.numel() / (time.perf_counter() - begin) / 1e9)
    with torch.device("cuda"), torch.inference_mode():
        torch.set_default_dtype(torch.bfloat16)
        transformer = FluxTransformer2DModel(**CONFIGS["transformer"]).eval()
        given = {
            "hidden_states": torch.randn(1, 4096, 64), "encoder_hidden_states": torch.randn(1, 512, 4096),
            "pooled_projections": torch.randn(1, 768), "timestep": torch.tensor([0.7]), "guidance": torch.tensor([3.5]),
            "img_ids": torch.zeros(4096, 3), "txt_ids": torch.zeros(512, 3), "return_dict": False,
        }  # fmt: skip
        times = []
        for _ in range(14):
            begin = time.perf_counter()
            transformer(**given)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
    name = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return {"device": name, "pinned GB/s": statistics.median(rates), "plain step s": statistics.median(times[4:])}


def part_preset(root: Path, preset: str, *, jobs: int = 4, is_compiled: bool = True, **more: Any) -> dict[str, Any]:
    """Cold and steady jobs of a preset: times, memory against the plan, moves, what a stop takes."""
    import psutil
    import torch

    from ad_agent_mcp.engines.diffusion.engine import open_engine

    before = _host_used()
    with _highest(_host_used) as host:
        begin = time.perf_counter()
        engine = open_engine(settings_of(root, preset, **more))
        result: dict[str, Any] = {"open s": time.perf_counter() - begin}
        engine._compiling.jobs += 0 if is_compiled else 2  # compiling begins with the second job
        runs: list[tuple[float, Watch]] = []
        for number in range(jobs):
            watch = Watch()
            runs.append((watched(engine, root, watch, f"{preset} {number} {time.time()}"), watch))
        steady, watch = runs[-1]
        residency = engine._residency
        at_rest = torch.cuda.memory_allocated() - residency.resident_bytes
        result |= {
            "jobs s": [seconds for seconds, _ in runs],
            "steady s": steady,
            "stages s": watch.seconds,
            "flux step s": watch.step_s("background"),
            "peaks GiB": {stage: peak[0] for stage, peak in watch.peaks.items()},
            "predicted GiB": watch.predicted,
            "reserved GiB": max(peak[1] for _, one in runs for peak in one.peaks.values()),
            "moves": watch.moves,
            "copied": [one.name for one in residency._weights.values() if one.host is not None],
            "notices": sorted({notice[:90] for _, one in runs for notice in one.notices}),
            "resident GiB": residency.resident_bytes / GIB,
            "host copies GiB": residency.host_bytes / GIB,
        }
        if is_compiled:
            result |= _stop(engine, root, watch.step_s("background"), at_rest)
        host_peak = host()
    result["host growth GiB"] = host_peak - before
    result["rss GiB"] = psutil.Process().memory_info().rss / GIB
    engine.unload()
    result["after unload GiB"] = torch.cuda.memory_reserved() / GIB
    return result


def _stop(engine: Any, root: Path, step_s: float, at_rest: int) -> dict[str, Any]:
    """Stop a job a third into its tenth FLUX step; then let memory run out for real, and recover."""
    import torch

    from ad_agent_mcp.contract.errors import AdAgentError, Cancelled

    asked: list[float] = []

    def at_step(stage: str, done: int) -> None:
        if stage == "background" and done == 9:
            threading.Timer(step_s / 3, lambda: asked.append(time.perf_counter())).start()
        if asked:
            raise Cancelled

    stopped = Watch()
    stopped.at_step = at_step
    took = -1.0
    try:
        watched(engine, root, stopped)
    except Cancelled:
        took = time.perf_counter() - asked[0]
    torch.cuda.synchronize()
    after_stop = torch.cuda.memory_allocated() - engine._residency.resident_bytes - at_rest
    engine.unload()
    empty = torch.cuda.memory_allocated()
    ballast = torch.empty(int(GIB * (CAP_GB - 6)), dtype=torch.uint8, device="cuda")
    starved, code = Watch(), "none"
    try:
        watched(engine, root, starved)
    except AdAgentError as error:
        code = str(error.info.code)
    after_oom = torch.cuda.memory_allocated() - ballast.numel() - empty
    del ballast
    torch.cuda.empty_cache()
    recovered = watched(engine, root, Watch())
    return {
        "stop s": took, "left after stop GiB": after_stop / GIB, "starved": code, "recovered s": recovered,
        "rungs": [notice[:90] for notice in starved.notices], "left after out of memory GiB": after_oom / GIB,
    }  # fmt: skip


def part_nf4(root: Path) -> dict[str, Any]:
    """The usual way under the same cap: each stage loads with `from_pretrained`, FLUX in nf4, runs, and deletes."""
    import gc

    import torch
    from diffusers import (
        AutoencoderKL,
        BitsAndBytesConfig,
        ControlNetModel,
        EulerDiscreteScheduler,
        FlowMatchEulerDiscreteScheduler,
        FluxImg2ImgPipeline,
        FluxInpaintPipeline,
        FluxPipeline,
        FluxTransformer2DModel,
        StableDiffusionXLControlNetPipeline,
        UNet2DConditionModel,
    )
    from PIL import Image
    from safetensors.torch import load_file
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

    from ad_agent_mcp.engines.cutout.birefnet import BiRefNet, BiRefNetConfig, matte

    folders = _hub_folders(root)
    _cap()
    seconds: dict[str, float] = {}
    bf16, half = torch.bfloat16, torch.float16

    def timed(name: str, body: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        made = body()
        torch.cuda.synchronize()
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin
        return made

    def clean() -> None:
        gc.collect()
        torch.cuda.empty_cache()

    def stage(name: str, load: Callable[[], tuple[Any, ...]], run: Callable[..., Any]) -> None:
        parts = [timed(f"{name} load", load)]
        timed(name, lambda: run(*parts[0]))
        parts.clear()
        timed(f"{name} free", clean)

    def cut_out(name: str) -> None:
        def load() -> tuple[Any, ...]:
            with torch.device("meta"):
                model = BiRefNet(BiRefNetConfig())
            state = load_file(folders["birefnet"] / "model.safetensors", device="cuda")
            state = {name: tensor for name, tensor in state.items() if not name.startswith("_pad.")}
            model.load_state_dict(state, assign=True)
            return (model,)

        stage(name, load, lambda model: matte(model, torch.zeros(1024, 1024, 3, dtype=torch.uint8)))

    tokens = torch.randint(3, 200, (1, 512), device="cuda")
    words = torch.randint(3, 200, (1, 77), device="cuda")
    picture = Image.new("RGB", (1024, 1024), "gray")

    def flux(name: str, pipeline: Any, steps: int, **given: Any) -> None:
        def load() -> tuple[Any, ...]:
            quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=bf16)
            return (
                T5EncoderModel.from_pretrained(folders["t5"], dtype=bf16, device_map="cuda"),
                CLIPTextModel.from_pretrained(folders["clip_l"], dtype=bf16, device_map="cuda"),
                AutoencoderKL.from_pretrained(folders["flux_vae"], torch_dtype=bf16).to("cuda"),
                FluxTransformer2DModel.from_pretrained(
                    folders["transformer"], quantization_config=quantised, torch_dtype=bf16, device_map="cuda"
                ),
            )

        def run(t5: Any, clip: Any, vae: Any, transformer: Any) -> None:
            scheduler = FlowMatchEulerDiscreteScheduler.from_config(SCHEDULERS["flux_scheduler"])
            pipe = pipeline(
                scheduler=scheduler, vae=vae, text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
                transformer=transformer,
            )  # fmt: skip
            pipe.set_progress_bar_config(disable=True)
            pipe(
                prompt_embeds=t5(tokens)[0], pooled_prompt_embeds=clip(words).pooler_output, width=1024, height=1024,
                num_inference_steps=steps, guidance_scale=3.5, **given,
            )  # fmt: skip

        stage(name, load, run)

    def load_letters() -> tuple[Any, ...]:
        return (
            UNet2DConditionModel.from_pretrained(folders["unet"], torch_dtype=half).to("cuda"),
            ControlNetModel.from_pretrained(folders["controlnet"], torch_dtype=half).to("cuda"),
            AutoencoderKL.from_pretrained(folders["sdxl_vae"], torch_dtype=half).to("cuda"),
            CLIPTextModel.from_pretrained(folders["sdxl_clip_l"], dtype=half, device_map="cuda"),
            CLIPTextModelWithProjection.from_pretrained(folders["sdxl_clip_g"], dtype=half, device_map="cuda"),
        )

    def letters(unet: Any, controlnet: Any, vae: Any, clip_l: Any, clip_g: Any) -> None:
        vae.register_to_config(force_upcast=False)
        pipe = StableDiffusionXLControlNetPipeline(
            vae=vae, text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None, unet=unet,
            controlnet=controlnet, scheduler=EulerDiscreteScheduler.from_config(SCHEDULERS["sdxl_scheduler"]),
            add_watermarker=False,
        )  # fmt: skip
        pipe.set_progress_bar_config(disable=True)
        two = words.repeat(2, 1)
        small, large = clip_l(two, output_hidden_states=True), clip_g(two, output_hidden_states=True)
        embeds = torch.cat([small.hidden_states[-2], large.hidden_states[-2]], -1)
        pipe(
            prompt_embeds=embeds[:1], negative_prompt_embeds=embeds[1:], pooled_prompt_embeds=large[0][:1],
            negative_pooled_prompt_embeds=large[0][1:], image=picture, num_inference_steps=28,
        )  # fmt: skip

    with torch.inference_mode():
        for _ in range(2):  # the first one also warms the libraries up
            seconds.clear()
            cut_out("cut_out")
            flux("background", FluxPipeline, 28)
            flux("refine", FluxImg2ImgPipeline, 28, image=picture, strength=0.6)
            stage("letters", load_letters, letters)
            cut_out("text_cut_out")
            flux("blend", FluxInpaintPipeline, 28, image=picture, mask_image=picture.convert("L"), strength=0.4)
    return {"job s": sum(seconds.values()), "stages s": seconds, "reserved GiB": torch.cuda.max_memory_reserved() / GIB}


def _hub_folders(root: Path) -> dict[str, Path]:
    """The prepared weights once more, under the names that `from_pretrained` looks for. Takes no room."""
    from ad_agent_mcp.engines.diffusion.flat import FlatFile
    from ad_agent_mcp.models.catalog import PRESETS
    from ad_agent_mcp.models.library import ModelLibrary

    preset = PRESETS["exact"]
    library = ModelLibrary(settings_of(root, "exact"))
    hub = root / "hub"
    shutil.rmtree(hub, ignore_errors=True)
    folders: dict[str, Path] = {}
    for component in preset.components:
        if not component.network or component.name == "modulation":
            continue
        name = "transformer" if component.name.startswith("transformer") else component.name
        folder = folders[name] = hub / name
        folder.mkdir(parents=True)
        source = library.prepared(preset, component.name)
        config = json.loads((source / "config.json").read_text())
        kind = (
            "diffusion_pytorch_model" if component.network[0] in "AFUC" and "CLIP" not in component.network else "model"
        )
        (folder / "config.json").write_text(json.dumps(config))
        files = sorted(source.glob("*.safetensors"))
        if name == "transformer":
            files += sorted(library.prepared(preset, "modulation").glob("*.safetensors"))
        if len(files) == 1:
            (folder / f"{kind}.safetensors").symlink_to(files[0])
            continue
        weight_map: dict[str, str] = {}
        for number, file in enumerate(files, 1):
            shard = f"{kind}-{number:05d}-of-{len(files):05d}.safetensors"
            (folder / shard).symlink_to(file)
            weight_map |= dict.fromkeys(FlatFile.open(file).tensors, shard)
        index = {"metadata": {"total_size": sum(file.stat().st_size for file in files)}, "weight_map": weight_map}
        (folder / f"{kind}.safetensors.index.json").write_text(json.dumps(index))
    return folders


def part_kill(root: Path, preset: str) -> dict[str, Any]:
    """SIGKILL of a worker in its work: seconds until its memory is free, and until the next one denoises."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)

    def used() -> float:
        return pynvml.nvmlDeviceGetMemoryInfo(handle).used / GIB

    idle = used()
    first = _denoising(root, preset)
    busy = used()
    first.kill()
    begin = time.perf_counter()
    while used() > idle + 0.05 and time.perf_counter() - begin < 30:
        time.sleep(0.005)
    free_s = time.perf_counter() - begin
    first.wait()
    begin = time.perf_counter()
    second = _denoising(root, preset)
    ready_s = time.perf_counter() - begin
    second.kill()
    second.wait()
    return {"used GiB": busy - idle, "killed to free s": free_s, "spawned to first step s": ready_s}


def _denoising(root: Path, preset: str) -> "subprocess.Popen[bytes]":
    """A worker process as a server starts it, given the reference job and in its first FLUX step."""
    from ad_agent_mcp.contract.call import GenerateRequest
    from ad_agent_mcp.contract.messages import EVENT, FRAME_HEADER, Inputs, Ready, StageProgress, StartJob, encode
    from ad_agent_mcp.contract.stages import EngineName
    from ad_agent_mcp.engines import describe_engine

    settings = settings_of(root, preset)
    environment = {**os.environ, **settings.to_environment()}
    worker = subprocess.Popen(
        [sys.executable, "-m", "ad_agent_mcp.worker"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    request = GenerateRequest(product_image="x", text_content="세일", seed=1)
    plan = describe_engine(EngineName.DIFFUSION, settings).plan((1, 2, 3))
    (root / "job").mkdir(exist_ok=True)
    inputs = Inputs(product=ROOT / "examples" / "product.png")
    while True:
        header = worker.stdout.read(FRAME_HEADER.size)
        event = EVENT.validate_json(worker.stdout.read(FRAME_HEADER.unpack(header)[0]))
        if isinstance(event, Ready):
            job = StartJob(job_id=JOB_ID, request=request, plan=plan, inputs=inputs, out_dir=root / "job")
            worker.stdin.write(encode(job))
            worker.stdin.flush()
        if isinstance(event, StageProgress) and event.stage == "background" and event.done == 1:
            return worker


PARTS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "ceiling": part_ceiling,
    "fast": lambda root: part_preset(root, "fast"),
    "exact": lambda root: part_preset(root, "exact", host_budget_gb=20),
    "kill": lambda root: part_kill(root, "fast"),
    "jit": lambda root: part_preset(root, "exact", jobs=2, is_compiled=False, residency="jit"),
    "nf4": part_nf4,
}


# measuring the machine


def _host_used() -> float:
    """Host memory in use that is not page cache or tmpfs, in GiB."""
    fields = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    free = fields["MemFree"] + fields.get("Buffers", 0) + fields["Cached"] + fields.get("SReclaimable", 0)
    return (fields["MemTotal"] - free) / 2**20


@contextmanager
def _highest(value: Callable[[], float]) -> Iterator[Callable[[], float]]:
    """The highest value while the context lasts, looked at ten times a second."""
    seen = [value()]
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            seen[0] = max(seen[0], value())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield lambda: seen[0]
    finally:
        ended.set()
        thread.join()


def _cap() -> None:
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, CAP_GB * GIB / total))


def table(results: Mapping[str, Any], device: str) -> str:
    """The figures beside their bars, as Markdown."""
    plain, pinned = results["ceiling"]["plain step s"], results["ceiling"]["pinned GB/s"]
    baseline = min(results["nf4"]["job s"], results["jit"]["steady s"])
    lines = [f"| {device}, cap {CAP_GB:g} GiB | bar | fast | exact |", "|---|---|---|---|"]

    def row(what: str, bar: str, figure: Callable[[Mapping[str, Any]], str]) -> None:
        lines.append(f"| {what} | {bar} | {figure(results['fast'])} | {figure(results['exact'])} |")

    def off(one: Mapping[str, Any]) -> str:
        worst = max((abs(peak / one["predicted GiB"][stage] - 1), stage) for stage, peak in one["peaks GiB"].items())
        return f"{worst[0]:.1%} ({worst[1]})"

    row("steady job, s", "", lambda one: f"{one['steady s']:.2f}")
    row(
        "load-run-delete (nf4) / ours",
        "fast 3.4, exact 2.6",
        lambda one: f"{results['nf4']['job s'] / one['steady s']:.2f}",
    )
    row("load-run-delete (the faster of nf4, jit) / ours", "", lambda one: f"{baseline / one['steady s']:.2f}")
    row("FLUX step / plain eager bf16", "fast 0.62, exact 0.80", lambda one: f"{one['flux step s'] / plain:.3f}")
    row("peak reserved, GiB", "21.0", lambda one: f"{one['reserved GiB']:.2f}")
    row("predicted peak of a stage, furthest off", "3 %", off)
    row("moved in a steady job, GiB", "fast 0", lambda one: f"{_moved(one):.2f}")
    row("copy rate of moves / pinned ceiling", "0.90", lambda one: f"{_rate(one) / pinned:.2f}" if _rate(one) else "-")
    row("host growth, GiB", "fast 18, exact 24", lambda one: f"{one['host growth GiB']:.1f}")
    row("stop, s (one step + 0.05)", "", lambda one: f"{one['stop s']:.3f} (step {one['flux step s']:.3f})")
    row(
        "left after stop / out of memory, GiB",
        "0",
        lambda one: f"{one['left after stop GiB']:.3f} / {one['left after out of memory GiB']:.3f}",
    )
    return "\n".join(lines)


def _moves(one: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Bytes and seconds of what came to the device and stayed; what is streamed through it left out."""
    streamed = ("t5/", "modulation/")
    return [(size, s) for name, state, size, s in one["moves"] if state == "loaded" and not name.startswith(streamed)]


def _moved(one: Mapping[str, Any]) -> float:
    return sum(size for size, _ in _moves(one)) / GIB


def _rate(one: Mapping[str, Any]) -> float:
    """Bytes per second, in 10^9, of what came from a copy in host memory."""
    timed = [(size, s) for name, state, size, s in one["moves"] if state == "loaded" and s and name in one["copied"]]
    timed = [(size, s) for size, s in timed if (size, s) in _moves(one)]
    return sum(size for size, _ in timed) / sum(seconds for _, seconds in timed) / 1e9 if timed else 0.0


def main() -> None:
    """Build what is missing, run the parts, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("/dev/shm/ad-agent-models"))  # noqa: S108
    parser.add_argument("--only", nargs="+", choices=["build", *PARTS])
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.root.mkdir(parents=True, exist_ok=True)
    if options.part:
        made = build(options.root) if options.part == "build" else PARTS[options.part](options.root)
        (options.out / f"gpu-{options.part}.json").write_text(json.dumps(made, indent=1))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for name in options.only or ["build", *PARTS]:
        begin = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "bench.gpu",
            "--root",
            str(options.root),
            "--out",
            str(options.out),
            "--part",
            name,
        ]
        code = subprocess.run(command, check=False).returncode
        print(f"== {name}: exit {code}, {time.perf_counter() - begin:.1f} s", flush=True)
        if code == 0:
            results[name] = json.loads((options.out / f"gpu-{name}.json").read_text())
            print(json.dumps(results[name]), flush=True)
    if results.keys() >= {"ceiling", "fast", "exact", "nf4", "jit"}:
        print(table(results, results["ceiling"]["device"]))


if __name__ == "__main__":
    main()
