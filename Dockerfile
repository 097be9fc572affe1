# syntax=docker/dockerfile:1

# The binary with the shipped sagas inside, on a slim Debian, as a user of its own.
#   docker build -t sagad . && docker compose up
# scripts/try-dockerfile carries the same steps out in fresh Debian roots where no container engine is at hand.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
# SQLite and ring bring C: the image has a compiler, nothing else is needed.
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin sagad \
    && install -D target/release/sagad /out/sagad \
    && strip --strip-debug /out/sagad

FROM debian:bookworm-slim
# Certificates for amqps; nothing else is linked but libc.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --no-log-init --uid 10001 --user-group --home-dir /var/lib/sagad --shell /usr/sbin/nologin sagad \
    && install -d -o sagad -g sagad -m 0700 /var/lib/sagad \
    && install -d /etc/sagad/sagas
COPY --from=build /out/sagad /usr/local/bin/sagad
COPY sagas/ /etc/sagad/sagas/
ENV SAGAD_STORE__PATH=/var/lib/sagad/sagad.db \
    SAGAD_SAGAS__DIR=/etc/sagad/sagas
WORKDIR /var/lib/sagad
USER sagad
VOLUME ["/var/lib/sagad"]
STOPSIGNAL SIGTERM
# Healthy is a daemon that answers on its socket, whether the broker is there or not: it waits for a broker by itself,
# and starting it anew would not bring one back. `status` exits 0 without a daemon too, so its answer is looked at.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["/bin/sh", "-c", "sagad status --json | grep -q '\"pid\"'"]
ENTRYPOINT ["sagad"]
CMD ["run"]
