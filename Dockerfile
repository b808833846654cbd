# The command with CUDA, for Kubernetes and apptainer: docker build -t clipood .
# The last stage has the run-time libraries of CUDA, among them NVRTC, and the headers that kernels include, but no toolkit.
FROM rust:1.92-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked -p clipood --features cuda

FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates=2024* \
        cuda-crt-13-0=13.0.* \
        cuda-cudart-dev-13-0=13.0.* \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /source/target/release/clipood /usr/local/bin/clipood
# Compiled kernels and models belong on the volume of the pods: set CLIPOOD_CACHE and HF_HOME to folders there.
USER 1000:1000
WORKDIR /tmp
ENTRYPOINT ["clipood"]
