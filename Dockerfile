# Build:  docker build -t ad-agent-mcp .                     the diffusion engine, for an NVIDIA GPU
#         docker build -t ad-agent-mcp --build-arg EXTRAS= . the draft engine only: no torch, no GPU
#
# Run:    docker run --gpus all -p 127.0.0.1:8000:8000 -v ad-data:/data -v ad-models:/models -v ad-cache:/cache \
#           -v "$PWD/token:/run/secrets/ad_agent_token:ro" -e AD_AGENT_TOKEN_FILE=/run/secrets/ad_agent_token ad-agent-mcp
#
# CUDA 13 comes with the torch wheels. The host needs an NVIDIA driver >= 580 and the NVIDIA container toolkit, nothing else.
# The server binds to every address of the container, and so refuses to start without a bearer token: AD_AGENT_TOKEN_FILE
# names a file that uid 10001 can read and that holds at least 16 characters. A host name other than localhost by which
# clients call the server goes into AD_AGENT_ALLOWED_HOSTS.
FROM python:3.11-slim

# Extras of the package, separated by commas; empty leaves torch out.
ARG EXTRAS=diffusion

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# libfribidi0: Pillow's wheels load it to shape text. gcc, libc6-dev: triton compiles its launchers at run time.
# Versions follow the base image's Debian release: its archive drops a package's older versions, so a pin would soon not build.
# hadolint ignore=DL3008
RUN packages=(libfribidi0) \
    && if [[ ",${EXTRAS// /}," == *,diffusion,* ]]; then packages+=(gcc libc6-dev); fi \
    && apt-get update \
    && apt-get install -y --no-install-recommends "${packages[@]}" \
    && rm -rf /var/lib/apt/lists/*

RUN groupadd --gid 10001 ad \
    && useradd --uid 10001 --gid ad --create-home --shell /usr/sbin/nologin ad \
    && install -d -o ad -g ad /data /models /cache

WORKDIR /src

COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY examples/product.png examples/
COPY fonts fonts
COPY ad_agent_mcp ad_agent_mcp

ENV PIP_CONSTRAINT=/src/constraints.txt \
    PIP_BUILD_CONSTRAINT=/src/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
# The package is this folder, and what it needs is pinned by the constraints.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".${EXTRAS:+[${EXTRAS}]}"

ENV AD_AGENT_DATA_DIR=/data \
    AD_AGENT_MODELS_DIR=/models \
    HF_HOME=/models/huggingface \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    TRITON_CACHE_DIR=/cache/triton \
    CUDA_CACHE_PATH=/cache/cuda \
    XDG_CACHE_HOME=/cache/xdg \
    PYTHONUNBUFFERED=1

WORKDIR /data
USER 10001:10001
VOLUME ["/data", "/models", "/cache"]
EXPOSE 8000

# /health answers without a token. An engine that is degraded still serves; only no answer is unhealthy.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]

CMD ["ad-agent-mcp", "serve", "--transport", "http", "--host", "0.0.0.0", "--port", "8000"]
