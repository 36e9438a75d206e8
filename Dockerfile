# cnnjax with all it needs, for CPUs or for NVIDIA GPUs. From this folder:
#
#   docker build -t cnnjax .
#   mkdir -p runs    # else Docker makes it, for root alone
#   docker run --rm -v "$PWD/runs:/cnnjax/runs" cnnjax train digits_lenet5
#   docker run --rm cnnjax test
#
#   docker build -t cnnjax:cuda --build-arg FLAVOR=cuda .
#   docker run --rm --gpus=all -v "$PWD/runs:/cnnjax/runs" cnnjax:cuda train cifar10_resnet
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# A compiler and libjpeg's headers make convolutions on a CPU, and reading photographs, faster.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install -y --no-install-recommends g++ libjpeg-dev && \
    rm -rf /var/lib/apt/lists/*

# The environment is outside the checkout, so that a devcontainer can put its own checkout over /cnnjax. Files that a
# container writes into a folder of the host belong to user 1000, mostly the first user there.
RUN useradd --uid 1000 --create-home cnnjax && install -d -o cnnjax -g cnnjax /cnnjax /cnnjax/runs /opt/cnnjax
ENV CNNJAX_VENV=/opt/cnnjax PIP_NO_CACHE_DIR=1 NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /cnnjax
COPY --chown=1000:1000 . .

# cpu, cuda or tpu
ARG FLAVOR=cpu
RUN ./launch.sh "--$FLAVOR"

ENTRYPOINT ["/cnnjax/launch.sh"]
CMD ["train", "digits_lenet5"]
