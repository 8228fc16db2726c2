# syntax=docker/dockerfile:1
#
#   docker build --tag checkpoint-operator .
#
# The cluster of `cargo e2e` makes the same image, binary and numeric user, without a container engine.

# The version of rust-toolchain.toml, which stays outside: it would download clippy and rustfmt.
FROM rust:1.95.0-slim-bookworm AS build
# ring compiles a little C and assembly.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /work
COPY Cargo.toml Cargo.lock ./
COPY src ./src
# The workspace names the test crate, which is not built here: its manifest and an empty program are all that Cargo asks for.
COPY e2e/Cargo.toml ./e2e/Cargo.toml
RUN mkdir -p e2e/src && echo 'fn main() {}' > e2e/src/main.rs
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/work/target \
    cargo build --release --locked --package checkpoint-operator --bin checkpoint-operator \
 && cp target/release/checkpoint-operator /checkpoint-operator

# glibc, libgcc and certificate authorities, no shell; of the same Debian as the build, for the version of glibc.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="checkpoint-operator" \
      org.opencontainers.image.description="Model checkpoints as Kubernetes objects" \
      org.opencontainers.image.source="https://github.com/checkpoints-dev/checkpoint-operator" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /checkpoint-operator /checkpoint-operator
# A number, because the kubelet cannot tell whether a name is root.
USER 65532:65532
ENTRYPOINT ["/checkpoint-operator"]
