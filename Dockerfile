# syntax=docker/dockerfile:1
# Two images from one file: `api` (API, migrations, beat, Flower; no torch) and `worker` (one network, one queue).
# Packages come from wherever pip is told to look: pass PIP_INDEX_URL or PIP_EXTRA_INDEX_URL as build arguments.

FROM python:3.11-slim-bookworm AS base
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    SCENEWORKS_DATA_DIR=/data/files \
    SCENEWORKS_WEIGHTS_DIR=/data/weights \
    TMPDIR=/data/scratch
# Named volumes take over the owner of the folder that they are first mounted on.
RUN groupadd --gid 10001 sceneworks \
    && useradd --uid 10001 --gid sceneworks --no-create-home --home-dir /data --shell /usr/sbin/nologin sceneworks \
    && install --directory --owner sceneworks --group sceneworks /data /data/files /data/weights /data/scratch
WORKDIR /app

FROM base AS api
COPY requirements-api.lock ./
# The lock is complete: --no-deps keeps pip from adding to it.
RUN pip install --require-hashes --no-deps --requirement requirements-api.lock
COPY pyproject.toml LICENSE NOTICE ./
COPY shared ./shared
COPY migrations ./migrations
COPY api ./api
# Of the worker, what probes an upload in a process of its own, and the name of its task for beat and Flower.
COPY worker/__init__.py ./worker/__init__.py
COPY worker/tasks/__init__.py ./worker/tasks/__init__.py
COPY worker/video ./worker/video
COPY worker/scanner ./worker/scanner
USER 10001:10001
EXPOSE 8000
CMD ["gunicorn", "--worker-class=gthread", "--workers=1", "--threads=48", "--bind=0.0.0.0:8000", "--timeout=60", "--graceful-timeout=30", "--keep-alive=15", "--worker-tmp-dir=/dev/shm", "--no-control-socket", "api.app:create_app()"]

FROM base AS worker
# First and by itself, without a hash: which build fits (CPU or CUDA) depends on where pip is told to look.
RUN pip install torch==2.13.0
COPY requirements-worker.lock ./
RUN pip install --require-hashes --no-deps --requirement requirements-worker.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY shared ./shared
COPY worker ./worker
# Brings the command `sceneworks-worker`; torch has brought setuptools.
RUN pip install --no-deps --no-build-isolation --editable .
USER 10001:10001
CMD ["python", "-m", "worker.main"]
