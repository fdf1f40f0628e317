# The image of every step; `python -m pipelines.image` builds it and tags it by its content (docs/kubeflow.md).
#   --build-arg BASE_IMAGE=...   any Debian or Ubuntu with Python 3.11 and its venv
#   --build-arg TORCH_INDEX=...  index with torch: CPU builds, or https://download.pytorch.org/whl/cu130 for CUDA
#   --secret id=ca,src=FILE      certificates to trust during the build, behind a proxy that opens TLS

ARG BASE_IMAGE=python:3.11.14-slim-bookworm

FROM ${BASE_IMAGE} AS dependencies
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python3 -m venv /opt/venv
COPY constraints.txt .
# torch before the rest: only a change of the constraints rebuilds its layer
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt,required=false \
    if [ -s /run/secrets/ca.crt ]; then export PIP_CERT=/run/secrets/ca.crt; fi; \
    /opt/venv/bin/pip install --extra-index-url "$TORCH_INDEX" --constraint constraints.txt torch
COPY pyproject.toml .
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt,required=false \
    if [ -s /run/secrets/ca.crt ]; then export PIP_CERT=/run/secrets/ca.crt; fi; \
    /opt/venv/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > requirements.txt \
    && /opt/venv/bin/pip install --constraint constraints.txt --requirement requirements.txt

FROM ${BASE_IMAGE}
# An unprivileged user in group 0, so that any user id that a cluster chooses can write what this group can write.
# KFP mounts /minio, /s3 and /gcs; /pemt holds checkpoints and caches, on a volume if one is mounted
RUN useradd --uid 1000 --gid 0 --home-dir /home/pemt --create-home pemt \
    && chmod 770 /home/pemt \
    && mkdir --mode 1777 /minio /s3 /gcs /pemt
ENV HOME=/home/pemt USER=pemt HF_HOME=/pemt/hub PYTHONUNBUFFERED=1 PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY --from=dependencies /opt/venv /opt/venv
COPY pemt_core pemt_core
COPY components components
ARG VERSION=unknown
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="PEMT Pipeline" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT"
RUN echo "$COMMIT" > COMMIT && python -m compileall -q pemt_core components
USER 1000
CMD ["python", "-m", "components.prepare", "--help"]
