# One image with both programs: hms-orch and hms-bus.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin hms-orch --bin hms-bus

FROM debian:12-slim
# Root certificates for services and databases that speak TLS.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 hms \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/hms --shell /usr/sbin/nologin hms \
    && install -d -m 0700 -o hms -g hms /var/lib/hms
COPY --from=build /src/target/release/hms-orch /src/target/release/hms-bus /usr/local/bin/
COPY LICENSE /usr/share/doc/hms-syncor/LICENSE
COPY sagas /usr/share/hms-syncor/sagas
USER 10001:10001
# The private signing key lives here: mount a volume, or name another file in HMS_SIGNING_KEY_FILE.
ENV HMS_SIGNING_KEY_FILE=/var/lib/hms/signing.pem
VOLUME /var/lib/hms
EXPOSE 7600
ENTRYPOINT ["hms-orch"]
CMD ["up"]
