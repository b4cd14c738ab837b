# The server of p2p, `p2p serve`, and with another command all of p2p:  docker build --tag p2p .
# PyTorch's wheels bring their own CUDA libraries, so that the smallest of NVIDIA's images is enough, also without a GPU.
ARG BASE=nvidia/cuda:13.0.1-base-ubuntu24.04

FROM ${BASE} AS build
# For an engine of TensorRT: --build-arg EXTRAS=serve,gpu
ARG EXTRAS=serve
# hadolint ignore=DL3008 # the archive of Ubuntu keeps no old versions to pin
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/p2p
WORKDIR /source
COPY . .
RUN /opt/p2p/bin/pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 p2p
COPY --from=build /opt/p2p /opt/p2p
ENV PATH=/opt/p2p/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/p2p
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["p2p"]
CMD ["serve", "emoji", "host=0.0.0.0"]
